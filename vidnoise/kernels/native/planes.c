/* Between the samples of a frame and the network's pictures. Parameters are a structure of floats (exact for integers up
 * to 2^24), filled in by native_planes.py. */
#include "common.h"

#define MOST_TAPS 12
#define WIDEST_FACTOR 4
#define SPAN (WIDEST_FACTOR * BLOCK + MOST_TAPS)

enum { IS_GRAY, IS_RGB, IS_YUV };

/* Where samples lie: bytes of each, kind of colours, size in samples, strides of the three components in samples. */
struct layout {
    float bytes, colors, height, width, chroma_height, chroma_width, factor_y, factor_x, row[3], column[3];
};

struct plane {
    const void *samples;
    int64_t row, column, height, width;
    int bytes;
};

static inline struct plane plane_of(const struct layout *l, const void *samples, int c) {
    int is_chroma = l->colors == IS_YUV && c > 0;
    return (struct plane){samples, (int64_t)l->row[c], (int64_t)l->column[c],
                          (int64_t)(is_chroma ? l->chroma_height : l->height),
                          (int64_t)(is_chroma ? l->chroma_width : l->width), (int)l->bytes};
}

/* Load n samples of row y from column `begin` on; outside the plane, its border is repeated. */
static inline void load(const struct plane *p, int64_t y, int64_t begin, int n, float *row) {
    int64_t at = within(y, p->height) * p->row, step = p->column;
    const uint8_t *bytes = (const uint8_t *)p->samples + at;
    const uint16_t *words = (const uint16_t *)p->samples + at;
    if (begin < 0 || begin + n > p->width)
        for (int i = 0; i < n; i++) {
            int64_t x = within(begin + i, p->width) * step;
            row[i] = p->bytes == 1 ? bytes[x] : words[x];
        }
    else if (p->bytes == 1 && step == 1)
        for (int i = 0; i < n; i++) row[i] = bytes[begin + i];
    else if (p->bytes == 1)
        for (int i = 0; i < n; i++) row[i] = bytes[(begin + i) * step];
    else if (step == 1)
        for (int i = 0; i < n; i++) row[i] = words[begin + i];
    else
        for (int i = 0; i < n; i++) row[i] = words[(begin + i) * step];
}

struct to_rgb {
    struct layout layout;
    float site_y, site_x, luma_scale, luma_offset, chroma_offset, chroma_scale;
    float red_cr, green_cb, green_cr, blue_cb, mean_cb, mean_cr, reflects;
};

/* Interpolate m pixels at a factor from samples, the first of which is one before that of the first pixel. */
static inline void across(const float *samples, float *pixels, int m, int factor, float site) {
    for (int phase = 0; phase < factor; phase++) {
        float at = (phase - site) / factor, before = floorf(at), weight = at - before;
        const float *left = samples + 1 + (int)before;
        for (int i = 0; i * factor + phase < m; i++) pixels[i * factor + phase] = left[i] + weight * (left[i + 1] - left[i]);
    }
}

/* Interpolate m pixels of a chroma plane from luma position (y, x0) on, as color.chroma.upsample does. */
static inline void chroma_row(const struct to_rgb *t, const struct plane *p, int64_t y, int64_t x0, int m, float *pixels) {
    int factor_y = (int)t->layout.factor_y, factor_x = (int)t->layout.factor_x, n = m / factor_x + 3;
    float at = (y % factor_y - t->site_y) / factor_y, before = floorf(at), weight = at - before;
    int64_t top = y / factor_y + (int64_t)before, left = x0 / factor_x - 1;
    float a[BLOCK + 4], b[BLOCK + 4];
    load(p, top, left, n, a);
    if (weight > 0) {
        load(p, top + 1, left, n, b);
        for (int i = 0; i < n; i++) a[i] += weight * (b[i] - a[i]);
    }
    for (int i = 0; i < n; i++) a[i] = (a[i] - t->chroma_offset) * t->chroma_scale;
    if (factor_x == 1)
        memcpy(pixels, a + 1, m * sizeof(float));
    else if (factor_x == 2)
        across(a, pixels, m, 2, t->site_x);
    else
        across(a, pixels, m, factor_x, t->site_x);
}

/* in: samples of three components. out: RGB (3, h, w), padded at the bottom and right by reflection, or by repeating the
 * border. p: struct to_rgb. */
KERNEL(planes_to_rgb) {
    const struct to_rgb *t = (const struct to_rgb *)p;
    struct plane planes[3];
    for (int c = 0; c < 3; c++) planes[c] = plane_of(&t->layout, in[c], c);
    int64_t height = planes[0].height, width = planes[0].width;
    for (int64_t y = first; y < last; y++) {
        int64_t from = y < height ? y : t->reflects ? 2 * (height - 1) - y : height - 1;
        float *rows[3];
        for (int c = 0; c < 3; c++) rows[c] = out[0] + (c * h + y) * w;
        for (int64_t x0 = 0; x0 < width; x0 += BLOCK) {
            int m = (int)smaller(BLOCK, width - x0);
            float pixels[3][BLOCK];
            for (int c = 0; c < (t->layout.colors == IS_RGB ? 3 : 1); c++) {
                load(&planes[c], from, x0, m, pixels[c]);
                for (int i = 0; i < m; i++) pixels[c][i] = pixels[c][i] * t->luma_scale - t->luma_offset;
            }
            if (t->layout.colors == IS_YUV) {
                float *luma = pixels[0], *cb = pixels[1], *cr = pixels[2];
                chroma_row(t, &planes[1], from, x0, m, cb);
                chroma_row(t, &planes[2], from, x0, m, cr);
                for (int i = 0; i < m; i++) {
                    float u = cb[i], v = cr[i], gray = luma[i] - t->mean_cb * u - t->mean_cr * v;
                    luma[i] = gray + t->red_cr * v;
                    cb[i] = gray + t->green_cb * u + t->green_cr * v;
                    cr[i] = gray + t->blue_cb * u;
                }
            }
            for (int c = 0; c < 3; c++)
                put(rows[c] + x0, pixels[t->layout.colors == IS_GRAY ? 0 : c], m * sizeof(float), h * w > 4 * LARGE);
        }
        for (int c = 0; c < 3; c++)
            for (int64_t x = width; x < w; x++) rows[c][x] = rows[c][t->reflects ? 2 * (width - 1) - x : width - 1];
    }
}

struct correction {
    struct layout source, target;
    float padded_height, padded_width, strength, has_noisy;
    float red, green, blue, scale, to_cb, to_cr, step, top;
    float first_y, taps_y, first_x, taps_x, weights_y[MOST_TAPS], weights_x[MOST_TAPS];
};

/* The difference (clean - noisy) * strength of n pixels of row y from column `begin` on, outside the frame that of its
 * border; without noisy, clean is the difference. */
static inline void difference(const struct correction *t, const float *const *in, int64_t y, int64_t begin, int n,
                              float rgb[3][SPAN]) {
    int64_t height = (int64_t)t->source.height, width = (int64_t)t->source.width, row_width = (int64_t)t->padded_width;
    int first = begin < 0 ? (int)-begin : 0, end = (int)smaller(n, width - begin); /* of those inside */
    float strength = t->strength;
    for (int c = 0; c < 3; c++) {
        int64_t row = (c * (int64_t)t->padded_height + within(y, height)) * row_width;
        const float *clean = in[0] + row + begin, *noisy = in[1] + row + begin;
        float *target = rgb[c];
        if (t->has_noisy)
            for (int i = first; i < end; i++) target[i] = (clean[i] - noisy[i]) * strength;
        else
            for (int i = first; i < end; i++) target[i] = clean[i];
        for (int i = 0; i < first; i++) target[i] = target[first];
        for (int i = end; i < n; i++) target[i] = target[end - 1];
    }
}

/* Add a correction, in codes, to n samples of row y from column x on: in whole steps, clamped to the codes' range. */
static inline void add(const struct correction *t, const struct plane *source, const struct plane *target, int64_t y,
                       int64_t x, int n, const float *correction) {
    float raw[BLOCK], per_step = 1 / t->step, step = t->step, top = t->top;
    load(source, y, x, n, raw);
    int32_t codes[BLOCK];
    for (int i = 0; i < n; i++) {
        float steps = clamp(correction[i] * per_step, -2097152, 2097152);
        codes[i] = (int32_t)clamp(rintf(steps) * step + raw[i], 0, top);
    }
    int64_t at = y * target->row + x * target->column;
    uint8_t *bytes = (uint8_t *)target->samples + at;
    uint16_t *words = (uint16_t *)target->samples + at;
    if (target->bytes == 1 && target->column == 1)
        for (int i = 0; i < n; i++) bytes[i] = (uint8_t)codes[i];
    else if (target->bytes == 1)
        for (int i = 0; i < n; i++) bytes[i * target->column] = (uint8_t)codes[i];
    else
        for (int i = 0; i < n; i++) words[i * target->column] = (uint16_t)codes[i];
}

/* Gather n corrections of a chroma plane from the pixels around them, as color.chroma.downsample does along a row. */
static inline void gather(const struct correction *t, const float *pixels, int n, int factor, float scale, float *codes) {
    for (int i = 0; i < n; i++) codes[i] = 0;
    for (int k = 0; k < (int)t->taps_x; k++) {
        float weight = t->weights_x[k] * scale;
        for (int i = 0; i < n; i++) codes[i] += weight * pixels[i * factor + k];
    }
}

/* Correct row y of luma, or of red, green and blue. */
static inline void correct_row(const struct correction *t, const float *const *in, const struct plane source[3],
                               const struct plane target[3], int64_t y) {
    int is_rgb = (int)t->source.colors == IS_RGB;
    float rgb[3][SPAN], codes[BLOCK];
    for (int64_t x = 0; x < source[0].width; x += BLOCK) {
        int n = (int)smaller(BLOCK, source[0].width - x);
        difference(t, in, y, x, n, rgb);
        for (int c = 0; c < (is_rgb ? 3 : 1); c++) {
            for (int i = 0; i < n; i++) /* the mean of three is gray, and the Y' of centred pictures */
                codes[i] = (is_rgb ? rgb[c][i] : (rgb[0][i] + rgb[1][i] + rgb[2][i]) / 3) * t->scale;
            add(t, &source[c], &target[c], y, x, n, codes);
        }
    }
}

/* Correct row y of both chroma planes. */
static inline void correct_chroma_row(const struct correction *t, const float *const *in, const struct plane source[3],
                                      const struct plane target[3], int64_t y) {
    int factor_y = (int)t->source.factor_y, factor_x = (int)t->source.factor_x;
    float rgb[3][SPAN], codes[BLOCK], cb[SPAN], cr[SPAN];
    for (int64_t x = 0; x < source[1].width; x += BLOCK) {
        int n = (int)smaller(BLOCK, source[1].width - x), span = (n - 1) * factor_x + (int)t->taps_x;
        for (int i = 0; i < span; i++) cb[i] = cr[i] = 0;
        for (int k = 0; k < (int)t->taps_y; k++) {
            float weight = t->weights_y[k];
            difference(t, in, y * factor_y + (int64_t)t->first_y + k, x * factor_x + (int64_t)t->first_x, span, rgb);
            float red = t->red, green = t->green, blue = t->blue, scale = t->scale;
            for (int i = 0; i < span; i++) {
                float luma = rgb[0][i] * red + rgb[1][i] * green + rgb[2][i] * blue;
                cb[i] += weight * (luma - rgb[2][i] * scale);
                cr[i] += weight * (luma - rgb[0][i] * scale);
            }
        }
        for (int c = 1; c < 3; c++) {
            const float *pixels = c == 1 ? cb : cr;
            float scale = c == 1 ? t->to_cb : t->to_cr;
            if (factor_x == 2)
                gather(t, pixels, n, 2, scale, codes);
            else
                gather(t, pixels, n, factor_x, scale, codes);
            add(t, &source[c], &target[c], y, x, n, codes);
        }
    }
}

/* in: clean and noisy RGB (3, padded height, padded width), samples of three components. out: their samples after the
 * correction. h: rows of the chroma planes, or of the others if there are none. p: struct correction. */
KERNEL(correct_planes) {
    (void)h, (void)w;
    const struct correction *t = (const struct correction *)p;
    struct plane source[3], target[3];
    for (int c = 0; c < 3; c++) {
        source[c] = plane_of(&t->source, in[2 + c], c);
        target[c] = plane_of(&t->target, out[c], c);
    }
    int factor = (int)t->source.factor_y;
    /* Rows of chroma by turns with those of luma from the same pixels, which are then still in cache. */
    for (int64_t y = first; y < last; y++) {
        for (int64_t row = y * factor; row < smaller((y + 1) * factor, source[0].height); row++)
            correct_row(t, in, source, target, row);
        if ((int)t->source.colors == IS_YUV) correct_chroma_row(t, in, source, target, y);
    }
}
