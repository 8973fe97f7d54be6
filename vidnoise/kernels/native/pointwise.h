/* What kernels share that work on blocks of pixels of planes. */
#pragma once

#include "common.h"

/* Of channel c of 12 bands: which of 6 levels and of 4 groups it has. */
#define LEVEL(c) ((c) < 3 ? (c) : 3 + (c) % 3)
#define GROUP(c) (((c) < 3 ? 0 : 2) + ((c) % 3 ? 1 : 0))

#define FOR_BLOCKS                                                                    \
    int64_t n = h * w;                                                                \
    for (int64_t at = first * w, m = 0; at < last * w; at += m)                       \
        if ((m = smaller(BLOCK, last * w - at)), 1)
#define EACH for (int i = 0; i < m; i++)
#define PLANE(k, c) (in[k] + (int64_t)(c) * n + at)
