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

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define KERNEL(name)                                                                                      \
    EXPORT void name(const float *const *in, float *const *out, const float *p, int64_t h, int64_t w, \
                     int64_t first, int64_t last)

/* Pixels that are worked on at once: few enough that all their intermediate results stay in the first cache. */
#define BLOCK 64
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
typedef int32_t mask8 __attribute__((vector_size(32), aligned(4)));

/* ReLU. */
static inline float8 rectify(float8 x) { return (float8)((mask8)x & (x > 0)); }

/* Write pixels `at` to `at` + m of channels-last memory, in float32 or bfloat16, from planes of BLOCK pixels each, at
 * least 4 of them. */
static inline void interleave(const float (*planes)[BLOCK], int channels, int m, void *target, int64_t at, int is_half) {
    float whole[BLOCK * MOST_CHANNELS];
    float *pixels = is_half ? whole : (float *)target + at * channels;
    for (int i = 0; i + 4 <= m; i += 4)
        for (int k = 0; k < channels; k += 4) {
            int c = (int)smaller(k, channels - 4);
            float4 a = *(const float4 *)(planes[c] + i), b = *(const float4 *)(planes[c + 1] + i);
            float4 d = *(const float4 *)(planes[c + 2] + i), e = *(const float4 *)(planes[c + 3] + i);
            float4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_ = __builtin_shufflevector(a, b, 2, 6, 3, 7);
            float4 de = __builtin_shufflevector(d, e, 0, 4, 1, 5), de_ = __builtin_shufflevector(d, e, 2, 6, 3, 7);
            float *pixel = pixels + i * channels + c;
            *(float4 *)pixel = __builtin_shufflevector(ab, de, 0, 1, 4, 5);
            *(float4 *)(pixel + channels) = __builtin_shufflevector(ab, de, 2, 3, 6, 7);
            *(float4 *)(pixel + 2 * channels) = __builtin_shufflevector(ab_, de_, 0, 1, 4, 5);
            *(float4 *)(pixel + 3 * channels) = __builtin_shufflevector(ab_, de_, 2, 3, 6, 7);
        }
    for (int i = m & ~3; i < m; i++)
        for (int c = 0; c < channels; c++) pixels[i * channels + c] = planes[c][i];
    if (!is_half) return;
    uint16_t *halves = (uint16_t *)target + at * channels;
    for (int i = 0; i < m * channels; i++) {
        uint32_t bits;
        memcpy(&bits, whole + i, 4);
        halves[i] = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16); /* to the nearest, ties to even */
    }
}

/* Upsample m pixels from x0 on of row y of a plane (sh, sw), by an even factor up to 8 that divides x0 and m, as PyTorch
 * does with align_corners=False. */
static inline void upsample_row(const float *plane, int64_t sh, int64_t sw, int factor, int64_t y, int64_t x0, int m,
                                float *row) {
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
