/* Lucas-Kanade motion search; see vidnoise/model/flow.py. */
#include "common.h"

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

/* in: now (H, W), before (H, W), flow (2, H, W), variance (H, W), where H, W are p[1] times h, w.
 * out: means of the terms of the equations (8, h, w). p[0]: doubt; p[1]: side of the squares that share one equation. */
KERNEL(equations) {
    int64_t pool = (int64_t)p[1], H = h * pool, W = w * pool, n = h * w;
    const float *now = in[0], *u = in[2], *v = in[2] + H * W, *variance = in[3];
    float doubt = p[0], share = 1.0f / (pool * pool);
    /* Three aligned rows with a border of one pixel, then the sums of a row of squares. */
    float *memory = malloc((3 * (W + 2) + 8 * W) * sizeof(float));
    if (!memory) return;
    float *ring[3] = {memory + 1, memory + 1 + (W + 2), memory + 1 + 2 * (W + 2)}, *sums = memory + 3 * (W + 2);
    for (int64_t y = first * pool - 1; y <= last * pool; y++) {
        float *next = ring[(y + 3) % 3];
        align_row(in[1], in[2], H, W, within(y, H), next);
        next[-1] = next[0];
        next[W] = next[W - 1];
        int64_t row = y - 1; /* whose neighbours are there now */
        if (row < first * pool) continue;
        const float *above = ring[(row + 2) % 3], *middle = ring[row % 3], *below = next;
        if (row % pool == 0) memset(sums, 0, 8 * W * sizeof(float));
        const float *t = now + row * W, *du = u + row * W, *dv = v + row * W, *var = variance + row * W;
        float *s0 = sums, *s1 = s0 + W, *s2 = s1 + W, *s3 = s2 + W, *s4 = s3 + W, *s5 = s4 + W, *s6 = s5 + W,
              *s7 = s6 + W;
        for (int64_t x = 0; x < W; x++) {
            float gx = (middle[x + 1] - middle[x - 1]) * 0.5f, gy = (below[x] - above[x]) * 0.5f;
            float residual = t[x] - middle[x], value = residual + gx * du[x] + gy * dv[x];
            float weight = 1 / (1 + residual * residual / (doubt * var[x]));
            float wx = weight * gx, wy = weight * gy;
            s0[x] += wx * gx;
            s1[x] += wx * gy;
            s2[x] += wy * gy;
            s3[x] += wx * value;
            s4[x] += wy * value;
            s5[x] += var[x];
            s6[x] += du[x];
            s7[x] += dv[x];
        }
        if (row % pool != pool - 1) continue;
        for (int c = 0; c < 8; c++) {
            float *target = out[0] + c * n + row / pool * w;
            for (int64_t x = 0; x < w; x++) {
                float sum = 0;
                for (int64_t k = 0; k < pool; k++) sum += sums[c * W + x * pool + k];
                target[x] = sum * share;
            }
        }
    }
    free(memory);
}

/* in: planes (8, h, w). out: their means over windows of (2 p[0] + 1) squared pixels, borders repeated (8, h, w). */
KERNEL(box_filter_terms) {
    int64_t radius = (int64_t)p[0], n = h * w;
    float share = 1.0f / ((2 * radius + 1) * (2 * radius + 1));
    float *columns = malloc((w + 2 * radius) * sizeof(float));
    if (!columns) return;
    for (int c = 0; c < 8; c++)
        for (int64_t y = first; y < last; y++) {
            float *sums = columns + radius, *target = out[0] + c * n + y * w;
            memset(sums, 0, w * sizeof(float));
            for (int64_t j = -radius; j <= radius; j++) {
                const float *row = in[0] + c * n + within(y + j, h) * w;
                for (int64_t x = 0; x < w; x++) sums[x] += row[x];
            }
            for (int64_t i = 1; i <= radius; i++) {
                sums[-i] = sums[0];
                sums[w - 1 + i] = sums[w - 1];
            }
            for (int64_t x = 0; x < w; x++) target[x] = 0;
            for (int64_t i = -radius; i <= radius; i++)
                for (int64_t x = 0; x < w; x++) target[x] += sums[x + i];
            for (int64_t x = 0; x < w; x++) target[x] *= share;
        }
    free(columns);
}

/* in: filtered terms (8, h, w). out: flow (2, h, w). p[0]: factor from the noise variance to the prior; p[1]: largest
 * change. */
KERNEL(solve) {
    int64_t n = h * w;
    for (int64_t i = first * w; i < last * w; i++) {
        const float *t = in[0] + i;
        float prior = t[5 * n] * p[0], xx = t[0] + prior, xy = t[n], yy = t[2 * n] + prior, u = t[6 * n], v = t[7 * n];
        float xv = t[3 * n] - t[0] * u - xy * v, yv = t[4 * n] - xy * u - t[2 * n] * v;
        float determinant = xx * yy - xy * xy;
        out[0][i] = u + clamp((yy * xv - xy * yv) / determinant, -p[1], p[1]);
        out[0][n + i] = v + clamp((xx * yv - xy * xv) / determinant, -p[1], p[1]);
    }
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
