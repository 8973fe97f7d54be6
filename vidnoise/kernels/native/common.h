/* What all kernels share: their signature, vector types, and functions that compilers vectorise.
 *
 * Pictures are planar float32. A kernel computes rows `first` to `last` of its h x w results, so that threads can
 * share them; the comment above each lists its inputs and outputs with their shapes, and its parameters.
 */
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX__
#include <immintrin.h>
#endif

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define KERNEL(name)                                                                                      \
    EXPORT void name(const float *const *in, float *const *out, const float *p, int64_t h, int64_t w, \
                     int64_t first, int64_t last)

/* Pixels that are worked on at once: few enough that all their intermediate results stay in the first caches, and not a power
 * of 2, by which they would all lie in the same few sets of a cache. A multiple of 16. */
#define BLOCK 240
#define MOST_CHANNELS 48

#define GRAY 0.57735026919f
#define ROOT_HALF 0.70710678119f
#define ROOT_SIXTH 0.40824829046f
#define ROOT_TWO_THIRDS 0.81649658093f

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t within(int64_t i, int64_t n) { return i < 0 ? 0 : i >= n ? n - 1 : i; }
static inline float clamp(float x, float low, float high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

/* Pictures of more pixels than this do not stay in the caches until the next kernel reads them. */
#define LARGE (1 << 18)

/* Copy results from a buffer to where they belong; those of a large picture past the caches, as a store into a cache would
 * first read what it overwrites. */
static inline void put(void *target, const void *source, int64_t bytes, int is_large) {
    int64_t done = 0;
#ifdef __AVX__
    if (is_large && ((uintptr_t)target & 31) == 0)
        for (; done + 32 <= bytes; done += 32)
            _mm256_stream_ps((float *)((char *)target + done), _mm256_loadu_ps((const float *)((const char *)source + done)));
#endif
    memcpy((char *)target + done, (const char *)source + done, bytes - done);
}

/* Wait until what was put past the caches can be seen by other threads. */
static inline void settle(void) {
#ifdef __AVX__
    _mm_sfence();
#endif
}

/* Natural logarithm of a positive normal number, to about 1e-7: the polynomial of the Cephes library. */
static inline float log_of(float x) {
    int32_t bits;
    memcpy(&bits, &x, 4);
    int32_t exponent = (bits - 0x3f3504f3) >> 23;
    bits -= exponent * (1 << 23);
    float f;
    memcpy(&f, &bits, 4);
    f -= 1;
    float y = 7.0376836292e-2f;
    y = y * f - 1.1514610310e-1f;
    y = y * f + 1.1676998740e-1f;
    y = y * f - 1.2420140846e-1f;
    y = y * f + 1.4249322787e-1f;
    y = y * f - 1.6668057665e-1f;
    y = y * f + 2.0000714765e-1f;
    y = y * f - 2.4999993993e-1f;
    y = y * f + 3.3333331174e-1f;
    return (float)exponent * 0.69314718056f + (f + f * f * (y * f - 0.5f));
}

/* Exponential function, to about 2e-7 of its value: the polynomial of the Cephes library. */
static inline float exp_of(float x) {
    x = clamp(x, -87, 88);
    float n = floorf(x * 1.44269504089f + 0.5f);
    x = x - n * 0.693359375f + n * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * x + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * x * x + x + 1;
    int32_t bits;
    memcpy(&bits, &y, 4);
    bits += (int32_t)n * (1 << 23);
    memcpy(&y, &bits, 4);
    return y;
}

typedef float float4 __attribute__((vector_size(16), aligned(4)));
typedef float float8 __attribute__((vector_size(32), aligned(4)));

/* The widest vector that there are registers for. */
#ifdef __AVX512F__
typedef float widest __attribute__((vector_size(64), aligned(4)));
#else
typedef float8 widest;
#endif
#define WIDEST ((int)(sizeof(widest) / sizeof(float)))

/* ReLU of a vector of any width. */
#define RECTIFIED(x) ((__typeof__(x))((__typeof__((x) > 0))(x) & ((x) > 0)))

typedef uint16_t half8 __attribute__((vector_size(16), aligned(2)));

static inline float float_of(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* The nearest bfloat16, ties to even. */
static inline uint16_t half_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* Transpose 4 rows of 4 floats. */
static inline void transpose4(const float *source, int64_t stride, float *target, int64_t apart) {
    float4 a = *(const float4 *)source, b = *(const float4 *)(source + stride);
    float4 c = *(const float4 *)(source + 2 * stride), d = *(const float4 *)(source + 3 * stride);
    float4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_ = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    float4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_ = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(float4 *)target = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    *(float4 *)(target + apart) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    *(float4 *)(target + 2 * apart) = __builtin_shufflevector(ab_, cd_, 0, 1, 4, 5);
    *(float4 *)(target + 3 * apart) = __builtin_shufflevector(ab_, cd_, 2, 3, 6, 7);
}

/* Transpose 8 rows of 8 halves. */
static inline void transpose8(const uint16_t *source, int64_t stride, uint16_t *target, int64_t apart) {
    half8 a[8], b[8];
    for (int i = 0; i < 8; i++) a[i] = *(const half8 *)(source + i * stride);
    for (int i = 0; i < 8; i += 2) {
        b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 1, 9, 2, 10, 3, 11);
        b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = __builtin_shufflevector(b[i + j], b[i + j + 2], 0, 1, 8, 9, 2, 3, 10, 11);
            a[i + 2 * j + 1] = __builtin_shufflevector(b[i + j], b[i + j + 2], 4, 5, 12, 13, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        *(half8 *)(target + 2 * i * apart) = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        *(half8 *)(target + (2 * i + 1) * apart) = __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* Make m pixels of channels-last memory from planes of BLOCK pixels each, at least 8 of them. */
static inline void interleave(const float (*planes)[BLOCK], int channels, int m, float *pixels) {
    for (int i = 0; i + 4 <= m; i += 4)
        for (int k = 0; k < channels; k += 4) {
            int c = (int)smaller(k, channels - 4);
            transpose4(planes[c] + i, BLOCK, pixels + i * channels + c, channels);
        }
    for (int i = m & ~3; i < m; i++)
        for (int c = 0; c < channels; c++) pixels[i * channels + c] = planes[c][i];
}

/* The same in bfloat16. */
static inline void interleave_halves(const float (*planes)[BLOCK], int channels, int m, uint16_t *pixels) {
    uint16_t halves[MOST_CHANNELS][BLOCK];
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < m; i++) halves[c][i] = half_of(planes[c][i]);
    for (int i = 0; i + 8 <= m; i += 8)
        for (int k = 0; k < channels; k += 8) {
            int c = (int)smaller(k, channels - 8);
            transpose8(halves[c] + i, BLOCK, pixels + i * channels + c, channels);
        }
    for (int i = m & ~7; i < m; i++)
        for (int c = 0; c < channels; c++) pixels[i * channels + c] = halves[c][i];
}

/* Write pixels `at` to `at` + m of channels-last memory, in float32 or bfloat16. */
static inline void put_pixels(const float (*planes)[BLOCK], int channels, int m, void *target, int64_t at, int is_half,
                              int is_large) {
    float pixels[BLOCK * MOST_CHANNELS];
    int64_t size = channels * (is_half ? sizeof(uint16_t) : sizeof(float));
    if (is_half)
        interleave_halves(planes, channels, m, (uint16_t *)pixels);
    else
        interleave(planes, channels, m, pixels);
    put((char *)target + at * size, pixels, m * size, is_large);
}

/* The inverse, of m pixels of a number of channels that is a multiple of 4, in float32; planes are `apart` apart. */
static inline void deinterleave(const float *pixels, int channels, int m, float *planes, int64_t apart) {
    for (int i = 0; i + 4 <= m; i += 4)
        for (int c = 0; c < channels; c += 4) transpose4(pixels + i * channels + c, channels, planes + c * apart + i, apart);
    for (int i = m & ~3; i < m; i++)
        for (int c = 0; c < channels; c++) planes[c * apart + i] = pixels[i * channels + c];
}

static inline __attribute__((always_inline)) void upsample_row_by(const float *plane, int64_t sh, int64_t sw, int factor,
                                                                 int64_t y, int64_t x0, int m, float *row) {
    float scale = 1.0f / factor, position = (y + 0.5f) * scale - 0.5f;
    position = position < 0 ? 0 : position;
    int64_t top = (int64_t)position;
    float below = position - top, wide[BLOCK + 16];
    const float *a = plane + top * sw, *b = plane + smaller(top + 1, sh - 1) * sw;
    int64_t begin = x0 / factor - 1;
    int columns = m / factor + 1;
    for (int j = 0; j < columns; j++) {
        int64_t left = within(begin + j, sw), right = within(begin + j + 1, sw);
        float l = a[left] + below * (b[left] - a[left]), step = (a[right] + below * (b[right] - a[right]) - l) * scale;
        for (int k = 0; k < factor; k++) wide[j * factor + k] = l + (k + 0.5f) * step;
    }
    memcpy(row, wide + factor / 2, m * sizeof(float));
}

/* Upsample m pixels from x0 on of row y of a plane (sh, sw), by 2, 4 or 8, which divides x0 and m, as PyTorch does with
 * align_corners=False. */
static inline void upsample_row(const float *plane, int64_t sh, int64_t sw, int factor, int64_t y, int64_t x0, int m,
                                float *row) {
    if (factor == 2)
        upsample_row_by(plane, sh, sw, 2, y, x0, m, row);
    else if (factor == 4)
        upsample_row_by(plane, sh, sw, 4, y, x0, m, row);
    else
        upsample_row_by(plane, sh, sw, 8, y, x0, m, row);
}
