/* Motion compensation of what is remembered. */
#include "common.h"

#define LANES 4
#define PICTURES 1
#define VECTOR float4
#define NAMED(name) name##_1
#include "warp_bands.h"

#define LANES 8
#define PICTURES 2
#define VECTOR float8
#define NAMED(name) name##_2
#include "warp_bands.h"

/* in: ratio (4, h, w), flow (2, h, w). out: the ratio, bilinearly warped (4, h, w); p[0] is added where the flow points
 * outside the picture. */
KERNEL(warp_ratio) {
    int64_t n = h * w;
    for (int64_t y = first; y < last; y++)
        for (int64_t x0 = 0; x0 < w; x0 += BLOCK) {
            int m = (int)smaller(BLOCK, w - x0);
            int64_t at = y * w + x0;
            int32_t a[BLOCK], b[BLOCK], c[BLOCK], d[BLOCK];
            float wx[BLOCK], wy[BLOCK], unknown[BLOCK];
            for (int i = 0; i < m; i++) {
                float x = x0 + i + in[1][at + i], z = y + in[1][n + at + i];
                unknown[i] = (x < -0.5f) | (x > w - 0.5f) | (z < -0.5f) | (z > h - 0.5f) ? p[0] : 0;
                x = clamp(x, 0, w - 1);
                z = clamp(z, 0, h - 1);
                int32_t left = (int32_t)x, top = (int32_t)z;
                int32_t right = left + 1 < w ? left + 1 : left, low = top + 1 < h ? top + 1 : top;
                wx[i] = x - left;
                wy[i] = z - top;
                a[i] = top * (int32_t)w + left;
                b[i] = top * (int32_t)w + right;
                c[i] = low * (int32_t)w + left;
                d[i] = low * (int32_t)w + right;
            }
            for (int k = 0; k < 4; k++) {
                const float *s = in[0] + k * n;
                float *target = out[0] + k * n + at;
                for (int i = 0; i < m; i++) {
                    float upper = s[a[i]] + wx[i] * (s[b[i]] - s[a[i]]), lower = s[c[i]] + wx[i] * (s[d[i]] - s[c[i]]);
                    target[i] = upper + wy[i] * (lower - upper) + unknown[i];
                }
            }
        }
}

/* in: hidden features (h, w, p[0]), flow (2, 2h, 2w), trust (2h, 2w). out: the features, bilinearly warped, times the
 * greatest trust in each square of 2 x 2 (h, w, p[0]). */
KERNEL(warp_hidden) {
    int64_t channels = (int64_t)p[0], n = 4 * h * w;
    for (int64_t y = first; y < last; y++)
        for (int64_t x = 0; x < w; x++) {
            int64_t at = 4 * y * w + 2 * x, low = at + 2 * w;
            const float *u = in[1], *v = in[1] + n, *t = in[2];
            float px = clamp(x + (u[at] + u[at + 1] + u[low] + u[low + 1]) * 0.125f, 0, w - 1);
            float py = clamp(y + (v[at] + v[at + 1] + v[low] + v[low + 1]) * 0.125f, 0, h - 1);
            float trust = fmaxf(fmaxf(t[at], t[at + 1]), fmaxf(t[low], t[low + 1]));
            int64_t left = (int64_t)px, top = (int64_t)py;
            int64_t right = smaller(left + 1, w - 1), bottom = smaller(top + 1, h - 1);
            float wx = px - left, wy = py - top, upper = trust * (1 - wy), lower = trust * wy;
            float ka = upper * (1 - wx), kb = upper * wx, kc = lower * (1 - wx), kd = lower * wx;
            const float *a = in[0] + (top * w + left) * channels, *b = in[0] + (top * w + right) * channels;
            const float *c = in[0] + (bottom * w + left) * channels, *d = in[0] + (bottom * w + right) * channels;
            float *target = out[0] + (y * w + x) * channels;
            for (int64_t i = 0; i < channels; i++) target[i] = ka * a[i] + kb * b[i] + kc * c[i] + kd * d[i];
        }
}
