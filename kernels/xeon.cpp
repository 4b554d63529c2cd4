// The kernels whose options are on, for the hooks.

#include "xeon.h"

#include "blocks.h"
#include "kernels.h"

#include <algorithm>
#include <initializer_list>

using namespace ggml::xeon;

namespace {

struct kernel {
    bool is_on;
    ggml_op op;
    size_t (*work_size)(const ggml_tensor * op, int n_threads);
    bool (*compute)(const ggml_compute_params * params, ggml_tensor * op);
};

constexpr std::initializer_list<kernel> kernels = {
#if defined(XEON_AVX2)
    {GGML_XEON_GEMV, GGML_OP_MUL_MAT, gemv_work_size, gemv},
    {GGML_XEON_GEMM, GGML_OP_MUL_MAT, gemm_work_size, gemm},
    {GGML_XEON_CONVOLUTION, GGML_OP_MUL_MAT, convolution_work_size, convolution},
    {GGML_XEON_ATTENTION, GGML_OP_FLASH_ATTN_EXT, attention_work_size, attention},
#endif
};

} // namespace

size_t ggml_xeon_work_size(const ggml_tensor * op, int n_threads) {
    size_t size = 0;
    for (const kernel & each : kernels) {
        if (each.is_on && each.op == op->op) {
            size = std::max(size, each.work_size(op, n_threads));
        }
    }
    return size;
}

bool ggml_xeon_compute(const ggml_compute_params * params, ggml_tensor * op) {
    return !params->use_ref && std::any_of(kernels.begin(), kernels.end(), [&](const kernel & each) {
        return each.is_on && each.op == op->op && each.compute(params, op);
    });
}

bool ggml_xeon_keeps_layout(ggml_type type) {
#if defined(XEON_AVX2)
    return GGML_XEON_LAYOUT && takes(type);
#else
    GGML_UNUSED(type);
    return false;
#endif
}
