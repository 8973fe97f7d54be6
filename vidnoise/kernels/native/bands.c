/* Between RGB and the Haar bands of luma and chroma. */
#include "common.h"

/* in: RGB (3, 2h, 2w). out: bands (12, h, w). */
KERNEL(rgb_to_bands) {
    int64_t n = h * w;
    for (int64_t y = first; y < last; y++)
        for (int64_t x0 = 0; x0 < w; x0 += BLOCK) {
            int m = (int)smaller(BLOCK, w - x0);
            float band[4][3][BLOCK];
            for (int c = 0; c < 3; c++) {
                const float *top = in[0] + 4 * c * n + 4 * y * w + 2 * x0, *low = top + 2 * w;
                for (int i = 0; i < m; i++) {
                    float ab = top[2 * i] + top[2 * i + 1], cd = low[2 * i] + low[2 * i + 1];
                    float a_b = top[2 * i] - top[2 * i + 1], c_d = low[2 * i] - low[2 * i + 1];
                    band[0][c][i] = (ab + cd) * 0.5f;
                    band[1][c][i] = (a_b + c_d) * 0.5f;
                    band[2][c][i] = (ab - cd) * 0.5f;
                    band[3][c][i] = (a_b - c_d) * 0.5f;
                }
            }
            for (int b = 0; b < 4; b++) {
                float *target = out[0] + 3 * b * n + y * w + x0;
                for (int i = 0; i < m; i++) {
                    float red = band[b][0][i], green = band[b][1][i], blue = band[b][2][i], sides = red + blue;
                    band[b][0][i] = (sides + green) * GRAY;
                    band[b][1][i] = (red - blue) * ROOT_HALF;
                    band[b][2][i] = sides * ROOT_SIXTH - green * ROOT_TWO_THIRDS;
                }
                for (int c = 0; c < 3; c++) put(target + c * n, band[b][c], m * sizeof(float), n > LARGE);
            }
        }
}

/* Half a block of pixels of bands, which are overwritten, as blocks of two rows of RGB. */
#define HALF_BLOCK (BLOCK / 2)
static inline void to_rgb(float band[12][HALF_BLOCK], int m, float (*top)[BLOCK], float (*low)[BLOCK]) {
    for (int b = 0; b < 4; b++)
        for (int i = 0; i < m; i++) {
            float luma = band[3 * b][i] * (0.5f * GRAY), second = band[3 * b + 2][i] * 0.5f;
            float sides = luma + second * ROOT_SIXTH, difference = band[3 * b + 1][i] * (0.5f * ROOT_HALF);
            band[3 * b][i] = sides + difference;
            band[3 * b + 1][i] = luma - second * ROOT_TWO_THIRDS;
            band[3 * b + 2][i] = sides - difference;
        }
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < m; i++) {
            float lv = band[c][i] + band[6 + c][i], hd = band[3 + c][i] + band[9 + c][i];
            float l_v = band[c][i] - band[6 + c][i], h_d = band[3 + c][i] - band[9 + c][i];
            top[c][2 * i] = lv + hd;
            top[c][2 * i + 1] = lv - hd;
            low[c][2 * i] = l_v + h_d;
            low[c][2 * i + 1] = l_v - h_d;
        }
}

static inline void load(const float *bands, int64_t n, int m, float band[12][HALF_BLOCK]) {
    for (int c = 0; c < 12; c++) memcpy(band[c], bands + c * n, m * sizeof(float));
}

/* in: bands (12, h, w). out: RGB and a zero (2h, 2w, 4). */
KERNEL(bands_to_rgb) {
    int64_t n = h * w;
    float band[12][HALF_BLOCK], rows[2][4][BLOCK] = {0};
    for (int64_t y = first; y < last; y++)
        for (int64_t x0 = 0; x0 < w; x0 += HALF_BLOCK) {
            int m = (int)smaller(HALF_BLOCK, w - x0);
            load(in[0] + y * w + x0, n, m, band);
            to_rgb(band, m, rows[0], rows[1]);
            for (int r = 0; r < 2; r++)
                put_pixels(rows[r], 4, 2 * m, out[0], (2 * y + r) * 2 * w + 2 * x0, 0, n > LARGE / 4);
        }
}

/* in: bands (12, h, w), remaining level (6, h, w), residual (h, w, 12), in bfloat16 if p[0] is 1, else in float32, bands of
 * the fused frame (12, h, w). out: clean RGB (3, 2h, 2w); RGB of the fused frame, of the clean one, and two zeros
 * (2h, 2w, 8). */
KERNEL(remove_noise) {
    int64_t n = h * w;
    float band[12][HALF_BLOCK], residual[12][HALF_BLOCK], whole[12 * HALF_BLOCK], rows[2][8][BLOCK] = {0};
    for (int64_t y = first; y < last; y++)
        for (int64_t x0 = 0; x0 < w; x0 += HALF_BLOCK) {
            int m = (int)smaller(HALF_BLOCK, w - x0);
            int64_t at = y * w + x0;
            const float *pixels = in[2] + 12 * at;
            if (p[0] > 0) {
                const uint16_t *halves = (const uint16_t *)in[2] + 12 * at;
                for (int i = 0; i < 12 * m; i++) whole[i] = float_of(halves[i]);
                pixels = whole;
            }
            deinterleave(pixels, 12, m, residual[0], HALF_BLOCK);
            for (int c = 0; c < 12; c++) {
                const float *level = in[1] + (c < 3 ? c : 3 + c % 3) * n + at;
                for (int i = 0; i < m; i++) band[c][i] = in[0][c * n + at + i] - level[i] * residual[c][i];
            }
            to_rgb(band, m, rows[0] + 3, rows[1] + 3);
            load(in[3] + at, n, m, band);
            to_rgb(band, m, rows[0], rows[1]);
            for (int r = 0; r < 2; r++) {
                int64_t pixel = (2 * y + r) * 2 * w + 2 * x0;
                for (int c = 0; c < 3; c++) put(out[0] + c * 4 * n + pixel, rows[r][3 + c], 2 * m * sizeof(float), n > LARGE / 4);
                put_pixels(rows[r], 8, 2 * m, out[1], pixel, 0, n > LARGE / 4);
            }
        }
}

/* in: bands (12, h, w). out: bytes (h, w), 1 where all details are below p[0]. */
KERNEL(is_flat) {
    int64_t n = h * w;
    for (int64_t y = first; y < last; y++)
        for (int64_t x0 = 0; x0 < w; x0 += BLOCK) {
            int m = (int)smaller(BLOCK, w - x0);
            float most[BLOCK] = {0};
            for (int c = 3; c < 12; c++) {
                const float *band = in[0] + c * n + y * w + x0;
                for (int i = 0; i < m; i++) most[i] = fabsf(band[i]) > most[i] ? fabsf(band[i]) : most[i];
            }
            uint8_t *flat = (uint8_t *)out[0] + y * w + x0;
            for (int i = 0; i < m; i++) flat[i] = most[i] < p[0];
        }
}

/* in: RGB (3, 2h, 2w). out: brightness (h, w), the mean over channels and 2 x 2 pixels. */
KERNEL(brightness) {
    int64_t n = 4 * h * w;
    for (int64_t y = first; y < last; y++) {
        const float *top = in[0] + 4 * y * w, *low = top + 2 * w;
        for (int64_t x = 0; x < w; x++) {
            float sum = 0;
            for (int c = 0; c < 3; c++)
                sum += top[c * n + 2 * x] + top[c * n + 2 * x + 1] + low[c * n + 2 * x] + low[c * n + 2 * x + 1];
            out[0][y * w + x] = sum * (1.0f / 12);
        }
    }
}

/* in: p[0] floats a pixel, of which those from p[1] on are RGB (2h, 2w, p[0]), p[1] + 4 at most p[0]. out: brightness (h, w). */
KERNEL(brightness_of_lanes) {
    int64_t lanes = (int64_t)p[0], begin = (int64_t)p[1];
    for (int64_t y = first; y < last; y++) {
        const float *top = in[0] + 4 * y * w * lanes + begin, *low = top + 2 * w * lanes;
        for (int64_t x = 0; x < w; x++, top += 2 * lanes, low += 2 * lanes) {
            float4 sum = *(const float4 *)top + *(const float4 *)(top + lanes) + *(const float4 *)low +
                         *(const float4 *)(low + lanes);
            out[0][y * w + x] = (sum[0] + sum[1] + sum[2]) * (1.0f / 12);
        }
    }
}
