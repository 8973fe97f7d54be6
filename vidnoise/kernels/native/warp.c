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

/* in: planes (4, h, w). out: the same (h, w, 4). */
KERNEL(in_lanes) {
    int64_t n = h * w;
    float planes[4][BLOCK];
    for (int64_t at = first * w, m = 0; at < last * w; at += m) {
        m = smaller(BLOCK, last * w - at);
        for (int c = 0; c < 4; c++) memcpy(planes[c], in[0] + c * n + at, m * sizeof(float));
        put_pixels(planes, 4, (int)m, out[0], at, 0, 0);
    }
}

/* in: ratio (h, w, 4), so that one load fetches a pixel, flow (2, h, w). out: the ratio, bilinearly warped (4, h, w); p[0]
 * is added where the flow points outside the picture. */
KERNEL(warp_ratio) {
    int64_t n = h * w;
    for (int64_t y = first; y < last; y++)
        for (int64_t x0 = 0; x0 < w; x0 += BLOCK) {
            int m = (int)smaller(BLOCK, w - x0);
            int64_t at = y * w + x0;
            int32_t corner[BLOCK], right[BLOCK], below[BLOCK]; /* in floats: the upper left pixel, and what the next are from it */
            float wx[BLOCK], wy[BLOCK], unknown[BLOCK], pixels[4 * BLOCK], planes[4][BLOCK];
            for (int i = 0; i < m; i++) {
                float x = x0 + i + in[1][at + i], z = y + in[1][n + at + i];
                unknown[i] = (x < -0.5f) | (x > w - 0.5f) | (z < -0.5f) | (z > h - 0.5f) ? p[0] : 0;
                x = clamp(x, 0, w - 1);
                z = clamp(z, 0, h - 1);
                int32_t left = (int32_t)x, top = (int32_t)z;
                right[i] = left + 1 < w ? 4 : 0;
                below[i] = top + 1 < h ? 4 * (int32_t)w : 0;
                wx[i] = x - left;
                wy[i] = z - top;
                corner[i] = 4 * (top * (int32_t)w + left);
            }
            for (int i = 0; i < m; i++) {
                const float *a = in[0] + corner[i], *b = a + below[i];
                float4 l = *(const float4 *)a, r = *(const float4 *)(a + right[i]);
                float4 L = *(const float4 *)b, R = *(const float4 *)(b + right[i]);
                float4 upper = l + wx[i] * (r - l), lower = L + wx[i] * (R - L);
                *(float4 *)(pixels + 4 * i) = upper + wy[i] * (lower - upper);
            }
            deinterleave(pixels, 4, m, planes[0], BLOCK);
            for (int k = 0; k < 4; k++) {
                for (int i = 0; i < m; i++) planes[k][i] += unknown[i];
                put(out[0] + k * n + at, planes[k], m * sizeof(float), n > LARGE);
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
