/* The evidence of noise and the first layer that sees it, vidnoise/model/noise_level.py. */
#include "pointwise.h"
#include "rows.h"

#define CHANNELS 35

/* Evidence for m pixels from `at` on; inputs as for the kernel below, `n` pixels each. */
static inline void evidence_of(const float *const *in, int64_t n, int64_t at, int m, float (*channel)[BLOCK]) {
    const float *known = in[2] + at, *mask = in[3] + at;
    for (int c = 0; c < 12; c++) {
        const float *band = PLANE(0, c), *past = PLANE(1, c);
        EACH {
            channel[c][i] = band[i] * (c < 3 ? 1 : 4) * mask[i];
            channel[21 + c][i] = (log_of(fabsf(band[i] - past[i]) + 1e-3f) * 0.3f + 1.1f) * known[i] * mask[i];
        }
        if (c >= 3) EACH channel[9 + c][i] = (log_of(fabsf(band[i]) + 1e-3f) * 0.3f + 1.1f) * mask[i];
    }
    EACH {
        channel[33][i] = known[i] * mask[i];
        channel[34][i] = mask[i];
    }
}

/* vidnoise.model.noise_level.noise_evidence
 * in: bands (12, h, w), past (12, h, w), known (h, w), mask (h, w). out: (h, w, 35). */
KERNEL(noise_evidence) {
    FOR_BLOCKS {
        float channel[CHANNELS][BLOCK];
        evidence_of(in, n, at, (int)m, channel);
        put_pixels(channel, CHANNELS, (int)m, out[0], at, p[0] > 0, n > LARGE);
    }
}

/* The same, and the layer of stride 2 that it is the input of, row by row, so that it stays in cache. Even and odd columns
 * of evidence lie apart, so that neighbouring results read neighbouring pixels.
 * in: as for noise_evidence, 4; weights (35, 3, 3, outputs) and bias. out: rectified (h / 2, w / 2, outputs), rounded up, in
 * bfloat16 if p[0] is 1, else in float32. p[1]: outputs, a multiple of 4, from 8 to MOST_CHANNELS. */
KERNEL(noise_stem) {
    int outputs = (int)p[1];
    const Layer layer = {in[4], in[5], CHANNELS, outputs, 1, 1};
    int64_t n = h * w, across = (w + 1) / 2, plane = plane_of(across), half = CHANNELS * plane, row = 2 * half;
    float *memory = calloc(3 * row + outputs * plane, sizeof(float)), *results = memory + 3 * row;
    if (!memory) return;
    float channel[CHANNELS][BLOCK], pixels[MOST_CHANNELS][BLOCK];
    for (int64_t y = 2 * first - 1; y < 2 * last && y < h; y++) {
        if (y >= 0)
            for (int64_t x0 = 0; x0 < w; x0 += BLOCK) {
                int m = (int)smaller(BLOCK, w - x0);
                evidence_of(in, n, y * w + x0, m, channel);
                for (int c = 0; c < CHANNELS; c++) {
                    float *even = memory + y % 3 * row + c * plane + PAD + x0 / 2, *odd = even + half;
                    for (int i = 0; i < m / 2; i++) even[i] = channel[c][2 * i], odd[i] = channel[c][2 * i + 1];
                    if (m % 2) even[m / 2] = channel[c][m - 1];
                }
            }
        /* Rows 2 r - 1 to 2 r + 1 make row r; below the last row are zeros. */
        int is_last = y == h - 1 && y % 2 == 0;
        if (y < 2 * first || (y % 2 == 0 && !is_last)) continue;
        int64_t r = y / 2;
        const float *taps[9];
        for (int t = 0; t < 9; t++) {
            int64_t source = 2 * r - 1 + t / 3;
            const float *even = memory + (source + 3) % 3 * row + PAD, *odd = even + half;
            taps[t] = source < 0 || source >= h ? 0 : t % 3 == 1 ? even : odd - (t % 3 == 0);
        }
        convolve_taps(&layer, taps, plane, across, results);
        for (int64_t x0 = 0; x0 < across; x0 += BLOCK) {
            int m = (int)smaller(BLOCK, across - x0);
            for (int c = 0; c < outputs; c++) memcpy(pixels[c], results + c * plane + PAD + x0, m * sizeof(float));
            put_pixels(pixels, outputs, m, out[0], r * across + x0, p[0] > 0, n > LARGE);
        }
    }
    free(memory);
}
