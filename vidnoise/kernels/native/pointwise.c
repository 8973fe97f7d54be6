/* Pointwise functions between convolutions; each equals its namesake in vidnoise/model.
 *
 * The inputs of convolutions are written channels-last, in bfloat16 if p[0] is 1, else in float32. */
#include "pointwise.h"

/* in and out: features (2h, 2w, p[0]). in: coarser ones (h, w, 4, p[0]), of the four pixels of a square, to be added to
 * them. In bfloat16 if p[1] is 1, else in float32. */
KERNEL(add_shuffled) {
    int64_t channels = (int64_t)p[0];
    for (int64_t y = first; y < last; y++)
        for (int64_t x = 0; x < w; x++)
            for (int64_t k = 0; k < 4; k++) {
                int64_t from = ((y * w + x) * 4 + k) * channels, to = ((2 * y + k / 2) * 2 * w + 2 * x + k % 2) * channels;
                if (p[1] > 0) {
                    const uint16_t *coarse = (const uint16_t *)in[0] + from;
                    uint16_t *sum = (uint16_t *)out[0] + to;
                    for (int64_t c = 0; c < channels; c++) sum[c] = half_of(float_of(sum[c]) + float_of(coarse[c]));
                } else {
                    for (int64_t c = 0; c < channels; c++) out[0][to + c] += in[0][from + c];
                }
            }
}

/* vidnoise.model.noise_level.affine_level
 * in: log parameters (12, h / p[0], w / p[0]), bands (12, h, w), mask (h, w). out: (6, h, w). p[1]: least level. */
KERNEL(affine_level) {
    int64_t n = h * w, factor = (int64_t)p[0], sh = h / factor, sw = w / factor;
    float least = p[1];
    for (int64_t y = first; y < last; y++)
        for (int64_t x0 = 0; x0 < w; x0 += BLOCK) {
            int m = (int)smaller(BLOCK, w - x0);
            int64_t at = y * w + x0;
            const float *luma = in[1] + at, *mask = in[2] + at;
            for (int c = 0; c < 6; c++) {
                float slope[BLOCK], offset[BLOCK], level[BLOCK];
                upsample_row(in[0] + c * sh * sw, sh, sw, (int)factor, y, x0, m, slope);
                upsample_row(in[0] + (6 + c) * sh * sw, sh, sw, (int)factor, y, x0, m, offset);
                EACH {
                    float signal = clamp(luma[i] * (GRAY / 2), 0, 1);
                    float variance = exp_of(2 * slope[i]) * signal + exp_of(2 * offset[i]);
                    float found = sqrtf(variance) * mask[i];
                    level[i] = found < least ? least : found;
                }
                put(out[0] + c * n + at, level, m * sizeof(float), n > LARGE);
            }
        }
}

/* vidnoise.model.fusion.smoothed
 * in: estimate (12, h, w), its ratio (4, h, w), prediction (12, h, w), its ratio (4, h, w). out: estimate (12, h, w),
 * its ratio (4, h, w). p[0]: least ratio of the prediction. */
KERNEL(smoothed) {
    FOR_BLOCKS {
        float share[4][BLOCK];
        for (int g = 0; g < 4; g++) {
            const float *gain = PLANE(1, g), *ratio = PLANE(3, g);
            float *left = out[1] + g * n + at;
            EACH {
                float r = ratio[i] < p[0] ? p[0] : ratio[i];
                share[g][i] = gain[i] / (gain[i] + r);
                left[i] = share[g][i] * r;
            }
        }
        for (int c = 0; c < 12; c++) {
            const float *estimate = PLANE(0, c), *bands = PLANE(2, c);
            float *target = out[0] + c * n + at, *s = share[GROUP(c)];
            EACH target[i] = estimate[i] + s[i] * (bands[i] - estimate[i]);
        }
    }
}

/* vidnoise.model.network.remaining_level
 * in: ratio (4, h, w), level (6, h, w). out: (6, h, w). */
KERNEL(remaining_level) {
    FOR_BLOCKS {
        for (int c = 0; c < 6; c++) {
            const float *ratio = PLANE(0, (c < 3 ? 0 : 2) + (c % 3 ? 1 : 0)), *level = PLANE(1, c);
            float *target = out[0] + c * n + at;
            EACH target[i] = sqrtf(ratio[i]) * level[i];
        }
    }
}

/* vidnoise.model.network.core_input
 * in: estimate (12, h, w), bands (12, h, w), warped output (12, h, w), trust in it (h, w), remaining level (6, h, w), level
 * (6, h, w), local mean (3, h / p[1], w / p[1]). out: (h, w, 45). p[2]: limit of
 * the results. */
KERNEL(core_input) {
    int64_t n = h * w, factor = (int64_t)p[1], sh = h / factor, sw = w / factor;
    float limit = p[2];
    for (int64_t y = first; y < last; y++)
        for (int64_t x0 = 0; x0 < w; x0 += BLOCK) {
            int m = (int)smaller(BLOCK, w - x0);
            int64_t at = y * w + x0;
            float channel[45][BLOCK], scale[6][BLOCK], remaining_scale[6][BLOCK];
            const float *trust = in[3] + at;
            for (int c = 0; c < 6; c++) {
                const float *remaining = PLANE(4, c), *level = PLANE(5, c);
                EACH {
                    scale[c][i] = 1 / level[i];
                    remaining_scale[c][i] = 1 / remaining[i];
                    channel[36 + c][i] = log_of(remaining[i]) * 0.3f + 1;
                }
            }
            for (int c = 0; c < 3; c++) upsample_row(in[6] + c * sh * sw, sh, sw, (int)factor, y, x0, m, channel[42 + c]);
            for (int c = 0; c < 12; c++) {
                const float *fused = PLANE(0, c), *noisy = PLANE(1, c), *past = PLANE(2, c);
                const float *s = scale[LEVEL(c)], *r = remaining_scale[LEVEL(c)], *local = channel[42 + c % 3];
                float twice = c < 3 ? 2 : 0;
                EACH {
                    float mean = twice * local[i], guide = fused[i] + trust[i] * (past[i] - fused[i]);
                    channel[c][i] = clamp((fused[i] - mean) * r[i], -limit, limit);
                    channel[12 + c][i] = clamp((noisy[i] - mean) * s[i], -limit, limit);
                    channel[24 + c][i] = clamp((guide - mean) * r[i], -limit, limit);
                }
            }
            put_pixels(channel, 45, m, out[0], at, p[0] > 0, n > LARGE);
        }
}
