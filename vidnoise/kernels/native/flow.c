/* Lucas-Kanade motion search; see vidnoise/model/flow.py. */
#include "common.h"

/* Of this doubt and more, all pixels count in full. */
#define NO_DOUBT 1e30f

/* Align row y of `before` (h, w), bilinearly. */
static inline void align_row(const float *before, const float *flow, int64_t h, int64_t w, int64_t y, float *row) {
    const float *u = flow + y * w, *v = flow + h * w + y * w;
    for (int64_t x = 0; x < w; x++) {
        float px = clamp(x + u[x], 0, w - 1), py = clamp(y + v[x], 0, h - 1);
        int32_t left = (int32_t)px, top = (int32_t)py;
        int32_t right = left + 1 < w ? left + 1 : left, low = top + 1 < h ? top + 1 : top;
        float wx = px - left, wy = py - top;
        int32_t a = top * (int32_t)w, b = low * (int32_t)w;
        float upper = before[a + left] + wx * (before[a + right] - before[a + left]);
        float lower = before[b + left] + wx * (before[b + right] - before[b + left]);
        row[x] = upper + wy * (lower - upper);
    }
}

/* Terms of the equations of m pixels, in units of a square's share, added to those of the rows above. `middle` and its
 * neighbours above and below are aligned with `now`. */
static inline __attribute__((always_inline)) void add_terms(const float *now, const float *above, const float *middle,
                                                            const float *below, const float *u, const float *v,
                                                            const float *variance, float doubt, int is_first, int m,
                                                            float (*sums)[BLOCK]) {
    for (int i = 0; i < m; i++) {
        float gx = (middle[i + 1] - middle[i - 1]) * 0.5f, gy = (below[i] - above[i]) * 0.5f;
        float residual = now[i] - middle[i], value = residual + gx * u[i] + gy * v[i];
        float weight = doubt < NO_DOUBT ? 1 / (1 + residual * residual / (doubt * variance[i])) : 1;
        float wx = weight * gx, wy = weight * gy;
        float terms[8] = {wx * gx, wx * gy, wy * gy, wx * value, wy * value, variance[i], u[i], v[i]};
        for (int c = 0; c < 8; c++) sums[c][i] = is_first ? terms[c] : sums[c][i] + terms[c];
    }
}

static inline __attribute__((always_inline)) void equations_by(int pool, const float *const *in, float *const *out, float doubt,
                                                               int64_t h, int64_t w, int64_t first, int64_t last) {
    int64_t H = h * pool, W = w * pool, n = h * w;
    float share = 1.0f / (pool * pool), sums[8][BLOCK];
    /* Aligned rows with a border of one pixel: those of a row of squares, the one above and the one below. */
    int64_t stride = W + 2, held = pool + 2;
    float *ring = malloc(held * stride * sizeof(float));
    if (!ring) return;
#define ALIGNED(row) (ring + ((row) + held) % held * stride + 1)
    int64_t done = first * pool - 1;
    for (int64_t y = first; y < last; y++) {
        for (; done <= (y + 1) * pool; done++) {
            float *row = ALIGNED(done);
            align_row(in[1], in[2], H, W, within(done, H), row);
            row[-1] = row[0];
            row[W] = row[W - 1];
        }
        for (int64_t x0 = 0; x0 < W; x0 += BLOCK) {
            int m = (int)smaller(BLOCK, W - x0);
            for (int k = 0; k < pool; k++) {
                int64_t row = y * pool + k, at = row * W + x0;
                add_terms(in[0] + at, ALIGNED(row - 1) + x0, ALIGNED(row) + x0, ALIGNED(row + 1) + x0, in[2] + at,
                          in[2] + H * W + at, in[3] + at, doubt, k == 0, m, sums);
            }
            for (int c = 0; c < 8; c++) {
                float *target = out[0] + c * n + y * w + x0 / pool;
                for (int i = 0; i < m / pool; i++) {
                    float sum = 0;
                    for (int k = 0; k < pool; k++) sum += sums[c][i * pool + k];
                    target[i] = sum * share;
                }
            }
        }
    }
    free(ring);
}

/* in: now (H, W), before (H, W), flow (2, H, W), variance (H, W), where H, W are p[1] times h, w.
 * out: means of the terms of the equations (8, h, w). p[0]: doubt; p[1]: side of the squares that share one equation: 1, 2
 * or 4. */
KERNEL(equations) {
    if (p[1] == 4)
        equations_by(4, in, out, p[0], h, w, first, last);
    else if (p[1] == 2)
        equations_by(2, in, out, p[0], h, w, first, last);
    else if (p[0] < NO_DOUBT)
        equations_by(1, in, out, p[0], h, w, first, last);
    else
        equations_by(1, in, out, NO_DOUBT, h, w, first, last);
}

/* Row y of planes (8, h, w), averaged over a window, borders repeated: 8 rows of w. */
static inline __attribute__((always_inline)) void box_row(const float *const rows[], int radius, int64_t apart, int64_t w,
                                                          float *columns, float *target) {
    float share = 1.0f / ((2 * radius + 1) * (2 * radius + 1));
    for (int c = 0; c < 8; c++) {
        float *sums = columns + radius, *means = target + c * w;
        for (int64_t x = 0; x < w; x++) {
            float sum = 0;
            for (int j = 0; j <= 2 * radius; j++) sum += rows[j][c * apart + x];
            sums[x] = sum * share;
        }
        for (int i = 1; i <= radius; i++) {
            sums[-i] = sums[0];
            sums[w - 1 + i] = sums[w - 1];
        }
        for (int64_t x = 0; x < w; x++) {
            float sum = 0;
            for (int i = -radius; i <= radius; i++) sum += sums[x + i];
            means[x] = sum;
        }
    }
}

static inline __attribute__((always_inline)) void solve_by(int radius, const float *terms, float *flow, float prior_factor,
                                                           float most, int64_t h, int64_t w, int64_t first, int64_t last) {
    int64_t n = h * w, held = 2 * radius + 1;
    float *memory = malloc((8 * w * (held + 1) + w + 2 * radius) * sizeof(float));
    if (!memory) return;
    float *twice = memory + 8 * w * held, *columns = twice + 8 * w;
    const float *rows[5];
    int64_t done = first - radius > 0 ? first - radius : 0;
    for (int64_t y = first; y < last; y++) {
        for (; done <= smaller(y + radius, h - 1); done++) {
            for (int j = 0; j < held; j++) rows[j] = terms + within(done + j - radius, h) * w;
            box_row(rows, radius, n, w, columns, memory + done % held * 8 * w);
        }
        for (int j = 0; j < held; j++) rows[j] = memory + within(y + j - radius, h) % held * 8 * w;
        box_row(rows, radius, w, w, columns, twice);
        for (int64_t x = 0; x < w; x++) {
            const float *t = twice + x;
            float prior = t[5 * w] * prior_factor, xy = t[w], u = t[6 * w], v = t[7 * w];
            float xx = t[0] + prior, yy = t[2 * w] + prior;
            float xv = t[3 * w] - t[0] * u - xy * v, yv = t[4 * w] - xy * u - t[2 * w] * v;
            float determinant = xx * yy - xy * xy;
            flow[y * w + x] = u + clamp((yy * xv - xy * yv) / determinant, -most, most);
            flow[n + y * w + x] = v + clamp((xx * yv - xy * xv) / determinant, -most, most);
        }
    }
    free(memory);
}

/* in: terms (8, h, w), to be averaged twice over windows of (2 p[0] + 1) squared pixels, p[0] 1 or 2. out: flow (2, h, w).
 * p[1]: factor from the noise variance to the prior; p[2]: largest change. */
KERNEL(solve) {
    if (p[0] == 1)
        solve_by(1, in[0], out[0], p[1], p[2], h, w, first, last);
    else
        solve_by(2, in[0], out[0], p[1], p[2], h, w, first, last);
}

/* in: flow (2, h / p[0], w / p[0]). out: bilinearly upsampled by p[0] and multiplied by p[1], (2, h, w). */
KERNEL(upsample_flow) {
    int factor = (int)p[0];
    int64_t n = h * w, sh = h / factor, sw = w / factor;
    for (int c = 0; c < 2; c++)
        for (int64_t y = first; y < last; y++)
            for (int64_t x0 = 0; x0 < w; x0 += BLOCK) {
                int m = (int)smaller(BLOCK, w - x0);
                float row[BLOCK], *target = out[0] + c * n + y * w + x0;
                upsample_row(in[0] + c * sh * sw, sh, sw, factor, y, x0, m, row);
                for (int i = 0; i < m; i++) target[i] = row[i] * p[1];
            }
}

/* in: now (h, w), before (h, w), flow (2, h, w), variance (h, w). out: by how much the flow explains the frame better
 * than no motion does, in noise variances (h, w). */
KERNEL(motion_evidence) {
    float *aligned = malloc(w * sizeof(float));
    if (!aligned) return;
    for (int64_t y = first; y < last; y++) {
        const float *now = in[0] + y * w, *before = in[1] + y * w, *variance = in[3] + y * w;
        align_row(in[1], in[2], h, w, y, aligned);
        for (int64_t x = 0; x < w; x++) {
            float still = now[x] - before[x], moved = now[x] - aligned[x];
            out[0][y * w + x] = (still * still - moved * moved) / variance[x];
        }
    }
    free(aligned);
}

/* in: filtered evidence (h, w), flow (2, h, w). out: flow times its confidence (2, h, w). p[0], p[1]: margin and width
 * of the sigmoid. */
KERNEL(trusted_flow) {
    int64_t n = h * w;
    for (int64_t i = first * w; i < last * w; i++) {
        float confidence = 1 / (1 + exp_of((p[0] - in[0][i]) / p[1]));
        out[0][i] = in[1][i] * confidence;
        out[0][n + i] = in[1][n + i] * confidence;
    }
}
