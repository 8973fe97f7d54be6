/* 3x3 convolutions row by row, for small networks whose features stay in cache.
 *
 * Rows of features lie in planes, each with zeros around: PAD floats before, and as many after. Pixels are worked on
 * WIDE at once; results beyond the row are garbage that only other such results come from. */
#pragma once

#include "common.h"

#define PAD 8
#define WIDE (3 * WIDEST)

/* Floats of a plane of a row of w pixels. */
static inline int64_t plane_of(int64_t w) { return (w + WIDE - 1) / WIDE * WIDE + 3 * PAD; }

/* Weights (inputs, 3, 3, outputs), outputs a multiple of 4; taps are `dilation` apart. */
typedef struct {
    const float *weights, *bias;
    int inputs, outputs, dilation, rectified;
} Layer;

/* One row of results, of w pixels, given the pixel of the first plane that each of the 9 taps of the first result reads;
 * NULL is a row of zeros. */
static inline void convolve_taps(const Layer *layer, const float *const taps[9], int64_t plane, int64_t w, float *target) {
    int outputs = layer->outputs;
    for (int o = 0; o < outputs; o += 4) {
        for (int64_t x = 0; x < w; x += WIDE) {
            widest sums[4][3];
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 3; j++) sums[i][j] = (widest){0} + layer->bias[o + i];
            for (int y = 0; y < 9; y += 3) {
                if (!taps[y]) continue;
                for (int c = 0; c < layer->inputs; c++) {
                    const float *weights = layer->weights + (c * 9 + y) * outputs + o;
                    for (int k = 0; k < 3; k++) {
                        const widest *pixels = (const widest *)(taps[y + k] + c * plane + x);
                        widest a = pixels[0], b = pixels[1], e = pixels[2];
#pragma GCC unroll 4
                        for (int i = 0; i < 4; i++) {
                            float weight = weights[k * outputs + i];
                            sums[i][0] += weight * a;
                            sums[i][1] += weight * b;
                            sums[i][2] += weight * e;
                        }
                    }
                }
            }
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 3; j++) {
                    widest sum = sums[i][j];
                    if (layer->rectified) sum = RECTIFIED(sum);
                    *(widest *)(target + (o + i) * plane + PAD + x + WIDEST * j) = sum;
                }
        }
        for (int i = 0; i < 4; i++) memset(target + (o + i) * plane + PAD + w, 0, PAD * sizeof(float));
    }
}

/* One row of a convolution, from the rows above, at and below it; NULL is a row of zeros. */
static inline void convolve_rows(const Layer *layer, const float *const rows[3], int64_t plane, int64_t w, float *target) {
    const float *taps[9];
    for (int t = 0; t < 9; t++) taps[t] = rows[t / 3] ? rows[t / 3] + PAD + (t % 3 - 1) * layer->dilation : 0;
    convolve_taps(layer, taps, plane, w, target);
}
