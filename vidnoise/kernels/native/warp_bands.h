/* Bicubic motion compensation of 1 or 2 pictures, straight to bands. Included once for each number, with the vector
 * type that holds a pixel of them all. */

/* in: RGB (3, h, w) of each picture. out: (h, w, LANES), so that one load fetches a pixel of all pictures. */
KERNEL(NAMED(interleave)) {
    int64_t n = h * w;
    float planes[LANES][BLOCK] = {0};
    for (int64_t at = first * w, m = 0; at < last * w; at += m) {
        m = smaller(BLOCK, last * w - at);
        for (int k = 0; k < PICTURES; k++)
            for (int c = 0; c < 3; c++) memcpy(planes[3 * k + c], in[k] + c * n + at, m * sizeof(float));
        put_pixels(planes, LANES, (int)m, out[0], at, 0, n > LARGE);
    }
}

/* 4 x 4 pixels from r on, times weights by column and by row. */
static inline VECTOR NAMED(filtered)(const float *r, int64_t stride, const float *kx, const float *ky) {
#if LANES == 4 /* two pixels in a vector */
    float8 a = {kx[0], kx[0], kx[0], kx[0], kx[1], kx[1], kx[1], kx[1]};
    float8 b = {kx[2], kx[2], kx[2], kx[2], kx[3], kx[3], kx[3], kx[3]}, sum = {0};
    for (int j = 0; j < 4; j++, r += stride) sum += (*(const float8 *)r * a + *(const float8 *)(r + 8) * b) * ky[j];
    return __builtin_shufflevector(sum, sum, 0, 1, 2, 3) + __builtin_shufflevector(sum, sum, 4, 5, 6, 7);
#else
    VECTOR sum = {0};
    for (int j = 0; j < 4; j++, r += stride)
        sum += (*(const VECTOR *)r * kx[0] + *(const VECTOR *)(r + LANES) * kx[1] + *(const VECTOR *)(r + 2 * LANES) * kx[2] +
                *(const VECTOR *)(r + 3 * LANES) * kx[3]) * ky[j];
    return sum;
#endif
}

/* in: interleaved pictures (2h, 2w, LANES), flow (2, h, w). out: bands (12, h, w) of each picture. */
KERNEL(NAMED(warp_bands)) {
    const float *source = in[0], *flow = in[1];
    int64_t n = h * w, H = 2 * h, W = 2 * w;
    enum { N = 32 };
    float pixels[N * 4 * LANES], band[4 * LANES][N];
    float offset[2][4][N], k[2][4][4][N]; /* by axis and pixel of the 2 x 2; the weights also by tap */
    int32_t corner[2][4][N];
    for (int64_t y = first; y < last; y++) {
        const float *up = flow + (y ? y - 1 : 0) * w, *mid = flow + y * w, *down = flow + smaller(y + 1, h - 1) * w;
        for (int64_t x0 = 0; x0 < w; x0 += N) {
            int m = (int)smaller(N, w - x0);
            for (int c = 0; c < 2; c++) {
                /* The flow at full resolution, twice as long there. */
                const float *u = up + c * n + x0, *o = mid + c * n + x0, *d = down + c * n + x0;
                float t[N + 2], b[N + 2];
                int left = x0 ? -1 : 0, right = x0 + m < w ? m : m - 1;
                for (int i = 0; i < m; i++) {
                    t[i + 1] = 0.5f * u[i] + 1.5f * o[i];
                    b[i + 1] = 0.5f * d[i] + 1.5f * o[i];
                }
                t[0] = 0.5f * u[left] + 1.5f * o[left];
                b[0] = 0.5f * d[left] + 1.5f * o[left];
                t[m + 1] = 0.5f * u[right] + 1.5f * o[right];
                b[m + 1] = 0.5f * d[right] + 1.5f * o[right];
                for (int i = 0; i < m; i++) {
                    offset[c][0][i] = 0.25f * t[i] + 0.75f * t[i + 1];
                    offset[c][1][i] = 0.75f * t[i + 1] + 0.25f * t[i + 2];
                    offset[c][2][i] = 0.25f * b[i] + 0.75f * b[i + 1];
                    offset[c][3][i] = 0.75f * b[i + 1] + 0.25f * b[i + 2];
                }
                const float A = -0.75f, limit = (float)((c ? H : W) + 2);
                for (int q = 0; q < 4; q++)
                    for (int i = 0; i < m; i++) {
                        float at = offset[c][q][i] + (float)(c ? 2 * y + (q >> 1) : 2 * (x0 + i) + (q & 1));
                        at = clamp(at, -3, limit);
                        float whole = floorf(at), s = at - whole, e = 1 - s;
                        corner[c][q][i] = (int32_t)whole - 1;
                        k[c][q][0][i] = A * s * e * e;
                        k[c][q][1][i] = ((A + 2) * s - (A + 3)) * s * s + 1;
                        k[c][q][2][i] = ((A + 2) * e - (A + 3)) * e * e + 1;
                        k[c][q][3][i] = A * e * s * s;
                    }
            }
            for (int i = 0; i < m; i++) {
                VECTOR v[4];
                for (int q = 0; q < 4; q++) {
                    int64_t x = corner[0][q][i], z = corner[1][q][i];
                    float kx[4] = {k[0][q][0][i], k[0][q][1][i], k[0][q][2][i], k[0][q][3][i]};
                    float ky[4] = {k[1][q][0][i], k[1][q][1][i], k[1][q][2][i], k[1][q][3][i]};
                    if (__builtin_expect(x >= 0 && x + 3 < W && z >= 0 && z + 3 < H, 1)) {
                        v[q] = NAMED(filtered)(source + (z * W + x) * LANES, W * LANES, kx, ky);
                    } else {
                        v[q] = (VECTOR){0};
                        for (int j = 0; j < 4; j++) {
                            const float *r = source + within(z + j, H) * W * LANES;
                            VECTOR line = {0};
                            for (int t = 0; t < 4; t++)
                                line += *(const VECTOR *)(r + within(x + t, W) * LANES) * kx[t];
                            v[q] += line * ky[j];
                        }
                    }
                }
                VECTOR ab = v[0] + v[1], cd = v[2] + v[3], a_b = v[0] - v[1], c_d = v[2] - v[3];
                VECTOR bands[4] = {ab + cd, a_b + c_d, ab - cd, a_b - c_d};
                memcpy(pixels + i * 4 * LANES, bands, sizeof bands);
            }
            deinterleave(pixels, 4 * LANES, m, band[0], N);
            for (int t = 0; t < PICTURES; t++)
                for (int b = 0; b < 4; b++) {
                    float *target = out[t] + 3 * b * n + y * w + x0, bands[3][N];
                    const float *red = band[b * LANES + 3 * t], *green = band[b * LANES + 3 * t + 1];
                    const float *blue = band[b * LANES + 3 * t + 2];
                    for (int i = 0; i < m; i++) {
                        float sides = red[i] + blue[i];
                        bands[0][i] = (sides + green[i]) * (0.5f * GRAY);
                        bands[1][i] = (red[i] - blue[i]) * (0.5f * ROOT_HALF);
                        bands[2][i] = sides * (0.5f * ROOT_SIXTH) - green[i] * (0.5f * ROOT_TWO_THIRDS);
                    }
                    for (int c = 0; c < 3; c++) put(target + c * n, bands[c], m * sizeof(float), n > LARGE);
                }
        }
    }
}

#undef LANES
#undef PICTURES
#undef VECTOR
#undef NAMED
