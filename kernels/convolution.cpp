// Product of two f16 matrices, as of Whisper's two convolutions (im2col): a panel of rows is widened to f32 once for
// many columns. ggml's dot products widen both rows for each element. Sums are f32; only the order of additions
// differs.
//
// Takes GGML_OP_MUL_MAT of 2D f16 tensors with rows of a multiple of 16 elements and 12 columns or more.

#include "floats.h"
#include "ggml-impl.h"
#include "kernels.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(XEON_AVX2)

namespace ggml::xeon {

namespace {

constexpr size_t ALIGN = 64;
constexpr int64_t PANEL_BYTES = 384 * 1024; // rows of src0 that a thread keeps widened

struct plan {
    int64_t k;
    int64_t rows;
    int64_t cols;
    int64_t panels;     // of KC rows, widened at a time
    size_t thread_size; // bytes of scratch of each thread
};

bool make_plan(const ggml_tensor * op, plan & p) {
    const ggml_tensor * src0 = op->src[0];
    const ggml_tensor * src1 = op->src[1];
    p.k = src0->ne[0];
    p.rows = src0->ne[1];
    p.cols = src1->ne[1];
    if (src0->type != GGML_TYPE_F16 || src1->type != GGML_TYPE_F16 || p.k % 16 != 0 || p.cols < 12 ||
        src0->ne[2] != 1 || src0->ne[3] != 1 || src1->ne[2] != 1 || src1->ne[3] != 1 ||
        src0->nb[0] != sizeof(ggml_fp16_t) || src1->nb[0] != sizeof(ggml_fp16_t) || op->nb[0] != sizeof(float)) {
        return false;
    }
    p.panels = std::max<int64_t>(1, PANEL_BYTES / (p.k * KC * sizeof(float)));
    p.thread_size = GGML_PAD((p.panels * KC * p.k + MR * p.k) * sizeof(float), ALIGN);
    return true;
}

// KC rows as k rows of KC, widened; zero for rows that are missing.
void pack_rows(const plan & p, const ggml_tensor * src0, int64_t first, float * out) {
    for (int64_t r = 0; r < KC; r++) {
        const ggml_fp16_t * row = (const ggml_fp16_t *) ((const char *) src0->data + (first + r) * src0->nb[1]);
        for (int64_t k = 0; k < p.k; k += VL) {
            float t[VL];
            store(t, first + r < p.rows ? load_f16(row + k) : zero());
            for (int i = 0; i < VL; i++) {
                out[(k + i) * KC + r] = t[i];
            }
        }
    }
}

} // namespace

size_t convolution_work_size(const ggml_tensor * op, int n_threads) {
    plan p;
    return make_plan(op, p) ? ALIGN + n_threads * p.thread_size : 0;
}

bool convolution(const ggml_compute_params * params, ggml_tensor * op) {
    const ggml_tensor * src0 = op->src[0];
    const ggml_tensor * src1 = op->src[1];
    plan p;
    if (!make_plan(op, p)) {
        return false;
    }
    GGML_ASSERT(params->wsize >= ALIGN + params->nth * p.thread_size);

    float * panels = (float *) ((char *) GGML_PAD((uintptr_t) params->wdata, ALIGN) + params->ith * p.thread_size);
    float * cols = panels + p.panels * KC * p.k;

    const int64_t all = (p.rows + KC - 1) / KC;
    const int64_t first = all * params->ith / params->nth;
    const int64_t last = all * (params->ith + 1) / params->nth;
    for (int64_t i = first; i < last; i += p.panels) {
        const int64_t n = std::min(last - i, p.panels);
        for (int64_t j = 0; j < n; j++) {
            pack_rows(p, src0, (i + j) * KC, panels + j * KC * p.k);
        }
        for (int64_t c = 0; c < p.cols; c += MR) {
            const int64_t nc = std::min<int64_t>(p.cols - c, MR);
            for (int64_t j = 0; j < MR; j++) {
                const char * col = (const char *) src1->data + (c + std::min(j, nc - 1)) * src1->nb[1];
                for (int64_t k = 0; k < p.k; k += VL) {
                    store(cols + j * p.k + k, load_f16(col + k * sizeof(ggml_fp16_t)));
                }
            }
            for (int64_t j = 0; j < n; j++) {
                const int64_t r = (i + j) * KC;
                const int64_t nr = std::min<int64_t>(p.rows - r, KC);
                float edge[MR * KC];
                product<MR>(p.k, cols, p.k, panels + j * KC * p.k, KC, edge, KC);
                for (int64_t l = 0; l < nc; l++) {
                    memcpy(
                        (char *) op->data + (c + l) * op->nb[1] + r * sizeof(float), edge + l * KC, nr * sizeof(float)
                    );
                }
            }
        }
    }
    return true;
}

} // namespace ggml::xeon

#endif
