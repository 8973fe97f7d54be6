/* Temporal fusion, vidnoise/model/fusion.py: evidence of misalignment, a small network that judges it, and the filter. */
#include "pointwise.h"
#include "rows.h"

#define CHANNELS 15

/* Evidence for m pixels from `at` on, in planes that are `apart` apart; inputs as for the kernel below, `n` pixels each. */
static inline void evidence_of(const float *const *in, int64_t n, int64_t at, int m, float *channel, int64_t apart) {
    float scale[6][BLOCK], root[4][BLOCK];
    for (int g = 0; g < 4; g++) {
        const float *ratio = PLANE(4, g);
        float *target = channel + (9 + g) * apart;
        EACH {
            float known = ratio[i] > 1 ? 1 : ratio[i];
            target[i] = sqrtf(known);
            root[g][i] = sqrtf(1 + known);
        }
    }
    for (int c = 0; c < 6; c++) {
        const float *level = PLANE(3, c), *r = root[(c < 3 ? 0 : 2) + (c % 3 ? 1 : 0)];
        EACH scale[c][i] = 1 / (level[i] * r[i]);
    }
    for (int k = 0; k < 2; k++) { /* means of logarithms, of the levels of luma and of chroma */
        const float *a = PLANE(3, k), *b = PLANE(3, 3 + k), *c = k ? PLANE(3, 2) : 0, *d = k ? PLANE(3, 5) : 0;
        float *target = channel + (13 + k) * apart;
        if (k)
            EACH target[i] = log_of(sqrtf(a[i] * b[i]) * sqrtf(c[i] * d[i])) * 0.15f + 1;
        else
            EACH target[i] = log_of(a[i] * b[i]) * 0.15f + 1;
    }
    for (int c = 0; c < 3; c++) {
        const float *level = PLANE(3, c), *noisy = PLANE(0, c), *fused = PLANE(1, c), *clean = PLANE(2, c);
        float *lows = channel + c * apart, *drifts = channel + (6 + c) * apart;
        EACH {
            float low = fabsf(noisy[i] - fused[i]) * scale[c][i];
            lows[i] = low > 20 ? 20 : low;
            drifts[i] = clamp((noisy[i] - clean[i]) / level[i], -20, 20);
        }
        const float *noisy_band[3], *fused_band[3], *s = scale[3 + c];
        for (int b = 0; b < 3; b++) noisy_band[b] = PLANE(0, 3 * b + 3 + c), fused_band[b] = PLANE(1, 3 * b + 3 + c);
        float *details = channel + (3 + c) * apart;
        EACH {
            float sum = 0;
            for (int b = 0; b < 3; b++) {
                float detail = fabsf(noisy_band[b][i] - fused_band[b][i]) * s[i];
                sum += detail > 20 ? 20 : detail;
            }
            details[i] = sum * (1.0f / 3);
        }
    }
}

/* vidnoise.model.fusion.misalignment_evidence
 * in: bands (12, h, w), warped estimate (12, h, w), warped output (3 or more, h, w), level (6, h, w), ratio (4, h, w).
 * out: (h, w, 15). */
KERNEL(misalignment_evidence) {
    FOR_BLOCKS {
        float channel[CHANNELS][BLOCK];
        evidence_of(in, n, at, (int)m, channel[0], BLOCK);
        put_pixels(channel, CHANNELS, (int)m, out[0], at, p[0] > 0, n > LARGE);
    }
}

/* Filter m pixels from `at` on, given the logarithms of the misalignment of four groups of bands, `step` floats apart. */
static inline void filter(const float *noisy_bands, const float *fused_bands, const float *ratios, float *const *out,
                          const float *least, int64_t n, int64_t at, int m, const float *const misalignment[4], int step) {
    float gain[4][BLOCK], results[BLOCK];
    for (int g = 0; g < 4; g++) {
        const float *ratio = ratios + g * n + at, *x = misalignment[g];
        EACH {
            float sum = ratio[i] + exp_of(clamp(x[step * i], -8, 6)), k = sum / (sum + 1);
            results[i] = sum;
            gain[g][i] = k < least[g] ? least[g] : k;
        }
        put(out[0] + g * n + at, results, m * sizeof(float), n > LARGE);
        put(out[2] + g * n + at, gain[g], m * sizeof(float), n > LARGE);
    }
    for (int c = 0; c < 12; c++) {
        const float *noisy = noisy_bands + c * n + at, *fused = fused_bands + c * n + at;
        float *k = gain[GROUP(c)];
        EACH results[i] = fused[i] + k[i] * (noisy[i] - fused[i]);
        put(out[1] + c * n + at, results, m * sizeof(float), n > LARGE);
    }
}

/* vidnoise.model.fusion.filtered
 * in: bands (12, h, w), estimate (12, h, w), ratio (4, h, w), log of misalignment (h, w, 4). out: ratio of the
 * prediction (4, h, w), estimate (12, h, w), its ratio (4, h, w). p: least gains, 4. */
KERNEL(filtered) {
    FOR_BLOCKS {
        const float *x = in[3] + 4 * at, *misalignment[4] = {x, x + 1, x + 2, x + 3};
        filter(in[0], in[1], in[2], out, p, n, at, (int)m, misalignment, 4);
    }
}

/* vidnoise.model.fusion.TemporalFusion: evidence, network and filter, row by row, so that all that is between them stays
 * in cache.
 * in: as for misalignment_evidence, 5; then for each of three layers weights (inputs, 3, 3, outputs) and bias. out: as for
 * filtered. p: least gains, 4; p[4]: outputs of the first two layers, a multiple of 4; p[5]: rows, which share the picture. */
KERNEL(fuse) {
    int width = (int)p[4];
    const Layer layers[3] = {
        {in[5], in[6], CHANNELS, width, 1, 1}, {in[7], in[8], width, width, 2, 1}, {in[9], in[10], width, 4, 1, 0}};
    int64_t n = h * w, strips = (int64_t)p[5], plane = plane_of(w);
    int64_t evidence_row = CHANNELS * plane, row = width * plane;
    float *memory = calloc(3 * evidence_row + (5 + 3) * row + 4 * plane, sizeof(float));
    float *evidence = memory, *first_layer = evidence + 3 * evidence_row, *second = first_layer + 5 * row, *last_layer = second + 3 * row;
    for (int64_t strip = first; strip < last; strip++) {
        int64_t begin = h * strip / strips, end = h * (strip + 1) / strips;
        for (int64_t y = begin - 4; y < end + 4; y++) {
            if (y >= 0 && y < h)
                for (int64_t x0 = 0; x0 < w; x0 += BLOCK) {
                    int m = (int)smaller(BLOCK, w - x0);
                    evidence_of(in, n, y * w + x0, m, evidence + y % 3 * evidence_row + PAD + x0, plane);
                }
#define ROW(buffer, count, size, r) ((r) < 0 || (r) >= h ? 0 : (buffer) + (r) % (count) * (size))
            int64_t r = y - 1;
            if (r >= begin - 3 && r >= 0 && r < h) {
                const float *rows[3] = {ROW(evidence, 3, evidence_row, r - 1), ROW(evidence, 3, evidence_row, r),
                                        ROW(evidence, 3, evidence_row, r + 1)};
                convolve_rows(layers, rows, plane, w, first_layer + r % 5 * row);
            }
            r = y - 3;
            if (r >= begin - 1 && r >= 0 && r < h) {
                const float *rows[3] = {ROW(first_layer, 5, row, r - 2), ROW(first_layer, 5, row, r),
                                        ROW(first_layer, 5, row, r + 2)};
                convolve_rows(layers + 1, rows, plane, w, second + r % 3 * row);
            }
            r = y - 4;
            if (r < begin) continue;
            const float *rows[3] = {ROW(second, 3, row, r - 1), ROW(second, 3, row, r), ROW(second, 3, row, r + 1)};
            convolve_rows(layers + 2, rows, plane, w, last_layer);
            for (int64_t x0 = 0; x0 < w; x0 += BLOCK) {
                const float *x = last_layer + PAD + x0, *misalignment[4] = {x, x + plane, x + 2 * plane, x + 3 * plane};
                filter(in[0], in[1], in[4], out, p, n, r * w + x0, (int)smaller(BLOCK, w - x0), misalignment, 1);
            }
        }
    }
    free(memory);
}
