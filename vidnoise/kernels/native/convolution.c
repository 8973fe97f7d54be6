/* 3x3 convolutions in channels-last layout, by Winograd's minimal filtering F(4x4, 3x3): Lavin and Gray, "Fast
 * Algorithms for Convolutional Neural Networks", arXiv:1509.09308. A tile of 4x4 results takes 36 products per pair of
 * channels where the direct way takes 144; what is lost to rounding is ten times as much, 1e-6 of the largest sum. */
#include "common.h"

#define TILE 4
#define SIDE 6
#define POINTS (SIDE * SIDE)
/* Channels of results that are worked on at once. */
#define LANES 16
/* Tiles, or channels of weights, that are worked on at once: their sums fill the registers. */
#define ROWS (WIDEST * 3 / 4)
#define VECTORS (LANES / WIDEST)
/* Most tiles that are transformed together, and floats that they may have: half of a second-level cache. */
#define MOST_TILES 48
#define MOST_FLOATS 73728

/* Points of the transformed tiles are apart by more than a power of two, lest they compete for the same cache lines. */
#define APART 16
#define MOST_INPUTS 256

static _Thread_local float transformed[MOST_FLOATS + POINTS * APART], gradients[MOST_FLOATS + POINTS * APART];
static _Thread_local float products[POINTS * MOST_TILES * LANES] __attribute__((aligned(64)));

/* The pictures of a batch, and the tiles that cover them. */
typedef struct {
    int64_t h, w, down, across;
    int channels;
} Grid;

/* Where a tile lies. */
typedef struct {
    int64_t picture, y, x;
} Place;

static inline Grid grid_of(int64_t h, int64_t w, int channels) {
    return (Grid){h, w, (h + TILE - 1) / TILE, (w + TILE - 1) / TILE, channels};
}

static inline Place place_of(const Grid *g, int64_t tile) {
    int64_t row = tile / g->across;
    return (Place){row / g->down, row % g->down * TILE, tile % g->across * TILE};
}

/* Tiles to transform at once, of which each has so many channels at most. */
static inline int tiles_at_once(int channels) {
    int most = (int)smaller(MOST_TILES, MOST_FLOATS / (POINTS * channels));
    return most > ROWS ? most / ROWS * ROWS : most;
}

/* Copy `side` x `side` pixels from (top, left) on, with zeros beyond the edges. */
static inline void copy_part(const float *picture, const Grid *g, int64_t top, int64_t left, int side, float *part) {
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            float *pixel = part + (y * side + x) * g->channels;
            if (top + y < 0 || top + y >= g->h || left + x < 0 || left + x >= g->w)
                memset(pixel, 0, g->channels * sizeof(float));
            else
                memcpy(pixel, picture + ((top + y) * g->w + left + x) * g->channels, g->channels * sizeof(float));
        }
}

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

/* Transform input tiles from `begin` on into `transformed`. */
static void transform_tiles(const float *pictures, const Grid *g, int64_t begin, int tiles, int64_t apart) {
    for (int i = 0; i < tiles; i++) {
        Place at = place_of(g, begin + i);
        const float *picture = pictures + at.picture * g->h * g->w * g->channels;
        int64_t top = at.y - 1, left = at.x - 1;
        float *target = transformed + i * g->channels, part[SIDE * SIDE * MOST_INPUTS];
        if (top >= 0 && left >= 0 && top + SIDE <= g->h && left + SIDE <= g->w) {
            transform_tile(picture + (top * g->w + left) * g->channels, g->w * g->channels, g->channels, target, apart);
        } else {
            copy_part(picture, g, top, left, SIDE, part);
            transform_tile(part, SIDE * g->channels, g->channels, target, apart);
        }
    }
}

#define UNROLLED _Pragma("GCC unroll 12")
#define INLINED static inline __attribute__((always_inline))

/* Matrix product of n tiles (n, channels) and weights (channels, LANES). */
INLINED void multiply(const float *v, const float *u, int channels, int n, float *m) {
    widest sums[ROWS][VECTORS] = {0};
    for (int k = 0; k < channels; k++) {
        const widest *weights = (const widest *)(u + k * LANES);
        UNROLLED for (int i = 0; i < n; i++)
            UNROLLED for (int j = 0; j < VECTORS; j++) sums[i][j] += v[i * channels + k] * weights[j];
    }
    UNROLLED for (int i = 0; i < n; i++)
        UNROLLED for (int j = 0; j < VECTORS; j++) ((widest *)(m + i * LANES))[j] = sums[i][j];
}

static void multiply_all(const float *v, const float *u, int channels, int tiles, float *m) {
    int i = 0;
    for (; i + ROWS <= tiles; i += ROWS) multiply(v + i * channels, u, channels, ROWS, m + i * LANES);
    for (; i + 4 <= tiles; i += 4) multiply(v + i * channels, u, channels, 4, m + i * LANES);
    for (; i < tiles; i++) multiply(v + i * channels, u, channels, 1, m + i * LANES);
}

/* Finish up to eight channels of a result: add a summand if there is one, rectify if wanted, and store them. */
static inline void finish(float8 sum, const float *added, int rectified, int lanes, int streams, float *target) {
    float8 some = {0};
    if (added) {
        if (lanes < 8)
            memcpy(&some, added, lanes * sizeof(float));
        else
            some = *(const float8 *)added;
        sum += some;
    }
    if (rectified) sum = RECTIFIED(sum);
#ifdef __AVX__
    if (streams) {
        _mm256_stream_ps(target, (__m256)sum);
        return;
    }
#endif
    if (lanes < 8)
        memcpy(target, &sum, lanes * sizeof(float));
    else
        *(float8 *)target = sum;
}

/* Transform the products of a tile, with `step` floats from one point to the next, into sums of eight channels. */
static inline void inverse_tile(const float *m, int64_t step, float8 sums[TILE][TILE]) {
    float8 t[TILE][SIDE];
    for (int x = 0; x < SIDE; x++) {
        float8 column[SIDE], r[TILE];
        for (int y = 0; y < SIDE; y++) column[y] = *(const float8 *)(m + (y * SIDE + x) * step);
        inverse(column, r);
        for (int y = 0; y < TILE; y++) t[y][x] = r[y];
    }
    for (int y = 0; y < TILE; y++) inverse(t[y], sums[y]);
}

/* in: pictures (n, h, w, p[0]), transformed weights (ceil(p[1] / 16), 36, p[0], 16), bias (16 ceil(p[1] / 16)), summand
 * (n, h, w, p[1]) if p[3]. out: (n, h, w, p[1]). p[0]: channels of the pictures, 8 to MOST_INPUTS; p[1]: of the results;
 * p[2]: whether the sums are rectified; p[3]: whether there is a summand. Beyond the edges all is zero. Rows are tiles. */
KERNEL(convolve) {
    int channels = (int)p[0], results = (int)p[1], rectified = p[2] > 0;
    Grid g = grid_of(h, w, channels);
    int most = tiles_at_once(channels);
    /* Past the caches, where they do not stay until the next layer, and lines are written as a whole. */
    int streams = h * w > LARGE && results % LANES == 0 && ((uintptr_t)out[0] & 63) == 0;
    for (int64_t begin = first; begin < last; begin += most) {
        int tiles = (int)smaller(most, last - begin);
        int64_t apart = (int64_t)tiles * channels + APART;
        transform_tiles(in[0], &g, begin, tiles, apart);
        for (int block = 0; block < results; block += LANES) {
            const float *weights = in[1] + (int64_t)block * POINTS * channels, *bias = in[2] + block;
            for (int point = 0; point < POINTS; point++)
                multiply_all(transformed + point * apart, weights + (int64_t)point * channels * LANES, channels, tiles,
                             products + point * tiles * LANES);
            for (int i = 0; i < tiles; i++) {
                Place at = place_of(&g, begin + i);
                int rows = (int)smaller(TILE, h - at.y), columns = (int)smaller(TILE, w - at.x);
                float8 sums[LANES / 8][TILE][TILE];
                int halves = (int)smaller(LANES / 8, (results - block + 7) / 8);
                for (int k = 0; k < halves; k++) inverse_tile(products + i * LANES + 8 * k, tiles * LANES, sums[k]);
                for (int y = 0; y < rows; y++)
                    for (int x = 0; x < columns; x++)
                        for (int k = 0; k < halves; k++) { /* all channels of a pixel: whole lines of the cache */
                            int channel = block + 8 * k, lanes = (int)smaller(8, results - channel);
                            int64_t to = ((at.picture * h + at.y + y) * w + at.x + x) * results + channel;
                            finish(sums[k][y][x] + *(const float8 *)(bias + 8 * k), p[3] > 0 ? in[3] + to : 0, rectified, lanes,
                                   streams, out[0] + to);
                        }
            }
        }
    }
}

/* One axis of the transposed inverse, four results to six products. */
static inline void transposed_inverse(const float8 y[TILE], float8 m[SIDE]) {
    float8 a = y[0] + y[2], b = y[1] + y[3], c = y[0] + 4 * y[2], e = 2 * y[1] + 8 * y[3];
    m[0] = y[0];
    m[1] = a + b;
    m[2] = a - b;
    m[3] = c + e;
    m[4] = c - e;
    m[5] = y[3];
}

/* Transform gradients of tiles from `begin` on into `gradients`, of which each has `lanes` channels, zeros at the end. */
static void transform_gradients(const float *pictures, const Grid *g, int64_t begin, int tiles, int lanes, int64_t apart) {
    if (lanes > g->channels) memset(gradients, 0, POINTS * apart * sizeof(float));
    for (int i = 0; i < tiles; i++) {
        Place at = place_of(g, begin + i);
        float part[TILE * TILE * MOST_INPUTS], *target = gradients + i * lanes;
        copy_part(pictures + at.picture * g->h * g->w * g->channels, g, at.y, at.x, TILE, part);
        for (int k = 0; k < g->channels; k += 8) {
            int c = (int)smaller(k, g->channels - 8);
            float8 t[TILE][SIDE], column[SIDE];
            for (int y = 0; y < TILE; y++) {
                float8 d[TILE];
                for (int x = 0; x < TILE; x++) d[x] = *(const float8 *)(part + (y * TILE + x) * g->channels + c);
                transposed_inverse(d, t[y]);
            }
            for (int x = 0; x < SIDE; x++) {
                float8 d[TILE] = {t[0][x], t[1][x], t[2][x], t[3][x]};
                transposed_inverse(d, column);
                for (int y = 0; y < SIDE; y++) *(float8 *)(target + (y * SIDE + x) * apart + c) = column[y];
            }
        }
    }
}

/* Add the products of n channels of tiles (tiles, channels) and LANES of their gradients (tiles, lanes). */
INLINED void accumulate(const float *v, const float *z, int channels, int lanes, int tiles, int n, float *target) {
    widest sums[ROWS][VECTORS];
    UNROLLED for (int i = 0; i < n; i++)
        UNROLLED for (int j = 0; j < VECTORS; j++) sums[i][j] = ((const widest *)(target + i * lanes))[j];
    for (int k = 0; k < tiles; k++) {
        const widest *gradient = (const widest *)(z + k * lanes);
        UNROLLED for (int i = 0; i < n; i++)
            UNROLLED for (int j = 0; j < VECTORS; j++) sums[i][j] += v[k * channels + i] * gradient[j];
    }
    UNROLLED for (int i = 0; i < n; i++)
        UNROLLED for (int j = 0; j < VECTORS; j++) ((widest *)(target + i * lanes))[j] = sums[i][j];
}

static void accumulate_all(const float *v, const float *z, int channels, int lanes, int tiles, float *target) {
    int i = 0;
    for (; i + ROWS <= channels; i += ROWS) accumulate(v + i, z, channels, lanes, tiles, ROWS, target + i * lanes);
    for (; i + 4 <= channels; i += 4) accumulate(v + i, z, channels, lanes, tiles, 4, target + i * lanes);
    for (; i < channels; i++) accumulate(v + i, z, channels, lanes, tiles, 1, target + i * lanes);
}

/* Gradient of the weights of `convolve`.
 * in: pictures (n, h, w, p[0]), gradient of the results (n, h, w, p[1]). out: (rows, 36, p[0], 16 ceil(p[1] / 16)), of
 * transformed weights, to be added up over the rows, zeros at first. p[0], p[1]: channels, 8 to MOST_INPUTS each; p[2]:
 * tiles of all pictures; p[3]: rows, which share the tiles. */
KERNEL(convolve_gradient) {
    int channels = (int)p[0], results = (int)p[1], lanes = (results + LANES - 1) / LANES * LANES;
    Grid of_pictures = grid_of(h, w, channels), of_results = grid_of(h, w, results);
    int most = tiles_at_once(channels > lanes ? channels : lanes);
    int64_t all = (int64_t)p[2], rows = (int64_t)p[3];
    for (int64_t row = first; row < last; row++) {
        int64_t end = all * (row + 1) / rows;
        for (int64_t begin = all * row / rows; begin < end; begin += most) {
            int tiles = (int)smaller(most, end - begin);
            int64_t apart = (int64_t)tiles * channels + APART, apart_z = (int64_t)tiles * lanes + APART;
            transform_tiles(in[0], &of_pictures, begin, tiles, apart);
            transform_gradients(in[1], &of_results, begin, tiles, lanes, apart_z);
            for (int point = 0; point < POINTS; point++)
                for (int block = 0; block < lanes; block += LANES)
                    accumulate_all(transformed + point * apart, gradients + point * apart_z + block, channels, lanes, tiles,
                                   out[0] + (row * POINTS + point) * channels * lanes + block);
        }
    }
}
