/* The one entry point: runs a kernel on several threads. */
#include "common.h"

typedef void kernel(const float *const *, float *const *, const float *, int64_t, int64_t, int64_t, int64_t);

/* Rows at once: enough pieces that threads which start late, or share their core, do not hold up the others. */
#define PIECES_PER_THREAD 4

EXPORT void run(kernel *work, const float *const *in, float *const *out, const float *p, int64_t h, int64_t w,
                int64_t rows, int threads) {
    if (threads == 1) { /* without OpenMP, which would change the size of PyTorch's team */
        work(in, out, p, h, w, 0, rows);
        settle();
        return;
    }
    int pieces = (int)smaller(rows, threads * PIECES_PER_THREAD);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int i = 0; i < pieces; i++) {
        work(in, out, p, h, w, rows * i / pieces, rows * (i + 1) / pieces);
        settle();
    }
}
