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
