/* 3x3 convolutions in channels-last layout by Winograd's minimal filtering F(4x4, 3x3): Lavin and Gray, "Fast Algorithms
 * for Convolutional Neural Networks", arXiv:1509.09308. A tile of 4x4 results takes 36 products per pair of channels
 * where the direct way takes 144; what is lost to rounding is about ten times as much, 1e-6 of the largest sum. */
#include "common.h"

#define TILE 4
#define SIDE 6
#define POINTS (SIDE * SIDE)
/* Channels of results that are worked on at once, and tiles: with their sums they fill the 16 registers of AVX2. */
#define LANES 16
#define ROWS 6
/* Most tiles that are transformed together, and floats that they may have: half of a second-level cache. */
#define MOST_TILES 48
#define MOST_FLOATS 73728

/* Points of the transformed tiles are apart by more than a power of two, lest they compete for the same cache lines. */
#define APART 16
#define MOST_INPUTS 256

typedef int32_t mask8 __attribute__((vector_size(32), aligned(4)));

static _Thread_local float transformed[MOST_FLOATS + POINTS * APART];
static _Thread_local float products[POINTS * MOST_TILES * LANES] __attribute__((aligned(64)));

/* One axis of the transform of an input tile, six values to six. */
static inline void transform(const float8 d[SIDE], float8 t[SIDE]) {
    float8 a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
    t[0] = 4 * d[0] - 5 * d[2] + d[4];
    t[1] = a + b;
    t[2] = a - b;
    t[3] = c + e;
    t[4] = c - e;
    t[5] = 4 * d[1] - 5 * d[3] + d[5];
}

/* One axis of the inverse, six products to four results. */
static inline void inverse(const float8 m[SIDE], float8 y[TILE]) {
    float8 a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], e = m[3] - m[4];
    y[0] = m[0] + a + c;
    y[1] = b + 2 * e;
    y[2] = a + 4 * c;
    y[3] = b + 8 * e + m[5];
}

/* Transform an input tile, whose rows are `stride` floats apart, and store its points `apart` floats apart. */
static inline void transform_tile(const float *x, int64_t stride, int channels, float *target, int64_t apart) {
    for (int k = 0; k < channels; k += 8) {
        int c = (int)smaller(k, channels - 8);
        float8 t[SIDE][SIDE];
        for (int j = 0; j < SIDE; j++) {
            float8 d[SIDE], r[SIDE];
            for (int i = 0; i < SIDE; i++) d[i] = *(const float8 *)(x + i * stride + j * channels + c);
            transform(d, r);
            for (int i = 0; i < SIDE; i++) t[i][j] = r[i];
        }
        for (int i = 0; i < SIDE; i++) {
            float8 r[SIDE];
            transform(t[i], r);
            for (int j = 0; j < SIDE; j++) *(float8 *)(target + (i * SIDE + j) * apart + c) = r[j];
        }
    }
}

/* Matrix product of n tiles (n, channels) and weights (channels, LANES). */
static inline __attribute__((always_inline)) void multiply(const float *v, const float *u, int channels, int n, float *m) {
    float8 low[ROWS] = {0}, high[ROWS] = {0};
    for (int k = 0; k < channels; k++) {
        float8 u0 = *(const float8 *)(u + k * LANES), u1 = *(const float8 *)(u + k * LANES + 8);
#pragma GCC unroll 6
        for (int i = 0; i < n; i++) {
            low[i] += v[i * channels + k] * u0;
            high[i] += v[i * channels + k] * u1;
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < n; i++) {
        *(float8 *)(m + i * LANES) = low[i];
        *(float8 *)(m + i * LANES + 8) = high[i];
    }
}

static void multiply_all(const float *v, const float *u, int channels, int tiles, float *m) {
    int i = 0;
    for (; i + ROWS <= tiles; i += ROWS) multiply(v + i * channels, u, channels, ROWS, m + i * LANES);
    v += i * channels, m += i * LANES;
    switch (tiles - i) {
        case 1: multiply(v, u, channels, 1, m); break;
        case 2: multiply(v, u, channels, 2, m); break;
        case 3: multiply(v, u, channels, 3, m); break;
        case 4: multiply(v, u, channels, 4, m); break;
        case 5: multiply(v, u, channels, 5, m); break;
    }
}

/* in: picture (h, w, p[0]), transformed weights (ceil(p[1] / 16), 36, p[0], 16), bias (16 ceil(p[1] / 16)), summand
 * (h, w, p[1]) if p[3]. out: (h, w, p[1]). p[0]: channels of the picture, at least 8; p[1]: of the result; p[2]: whether
 * the sums are rectified; p[3]: whether the summand is added after that. Rows are rows of tiles, ceil(h / 4). */
KERNEL(convolve) {
    int channels = (int)p[0], results = (int)p[1], rectified = p[2] > 0, added = p[3] > 0;
    int64_t stride = w * channels, across = (w + TILE - 1) / TILE;
    int most = (int)smaller(MOST_TILES, MOST_FLOATS / (POINTS * channels));
    most = most > ROWS ? most / ROWS * ROWS : most;
    for (int64_t row = first; row < last; row++)
        for (int64_t begin = 0; begin < across; begin += most) {
            int tiles = (int)smaller(most, across - begin);
            int64_t apart = (int64_t)tiles * channels + APART, y0 = row * TILE;
            for (int i = 0; i < tiles; i++) {
                int64_t top = y0 - 1, left = (begin + i) * TILE - 1;
                float *target = transformed + i * channels;
                if (top >= 0 && left >= 0 && top + SIDE <= h && left + SIDE <= w) {
                    transform_tile(in[0] + top * stride + left * channels, stride, channels, target, apart);
                    continue;
                }
                float tile[SIDE * SIDE * MOST_INPUTS]; /* at an edge, beyond which all is zero */
                for (int y = 0; y < SIDE; y++)
                    for (int x = 0; x < SIDE; x++) {
                        float *pixel = tile + (y * SIDE + x) * channels;
                        if (top + y < 0 || top + y >= h || left + x < 0 || left + x >= w)
                            memset(pixel, 0, channels * sizeof(float));
                        else
                            memcpy(pixel, in[0] + (top + y) * stride + (left + x) * channels, channels * sizeof(float));
                    }
                transform_tile(tile, SIDE * channels, channels, target, apart);
            }
            for (int block = 0; block * LANES < results; block++) {
                const float *weights = in[1] + (int64_t)block * POINTS * channels * LANES, *bias = in[2] + block * LANES;
                int lanes = (int)smaller(LANES, results - block * LANES);
                for (int point = 0; point < POINTS; point++)
                    multiply_all(transformed + point * apart, weights + (int64_t)point * channels * LANES, channels, tiles,
                                 products + point * tiles * LANES);
                for (int i = 0; i < tiles; i++)
                    for (int half = 0; half < lanes; half += 8) {
                        float8 t[TILE][SIDE];
                        for (int x = 0; x < SIDE; x++) {
                            float8 m[SIDE], r[TILE];
                            for (int y = 0; y < SIDE; y++)
                                m[y] = *(const float8 *)(products + ((y * SIDE + x) * tiles + i) * LANES + half);
                            inverse(m, r);
                            for (int y = 0; y < TILE; y++) t[y][x] = r[y];
                        }
                        float8 base = *(const float8 *)(bias + half);
                        int64_t x0 = (begin + i) * TILE;
                        int rows = (int)smaller(TILE, h - y0), columns = (int)smaller(TILE, w - x0);
                        for (int y = 0; y < rows; y++) {
                            float8 r[TILE];
                            inverse(t[y], r);
                            for (int x = 0; x < columns; x++) {
                                int64_t at = ((y0 + y) * w + x0 + x) * results + block * LANES + half;
                                float8 sum = r[x] + base;
                                if (rectified) sum = (float8)((mask8)sum & (sum > 0));
                                if (lanes - half >= 8) {
                                    if (added) sum += *(const float8 *)(in[3] + at);
                                    *(float8 *)(out[0] + at) = sum;
                                } else {
                                    for (int c = 0; c < lanes - half; c++)
                                        out[0][at + c] = added ? sum[c] + in[3][at + c] : sum[c];
                                }
                            }
                        }
                    }
            }
        }
}
