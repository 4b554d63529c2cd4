#pragma once

// What the hooks call. A kernel whose option of kernels.txt is off does nothing.

#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bytes of params->wdata that a kernel needs for op with n_threads threads, 0 if none takes it.
size_t ggml_xeon_work_size(const struct ggml_tensor * op, int n_threads);

// Compute op. Returns false, with nothing done, if no kernel takes it. All threads of params have to call it.
bool ggml_xeon_compute(const struct ggml_compute_params * params, struct ggml_tensor * op);

// Whether weights of this type have to stay as they are in the file, since a kernel reads them so.
bool ggml_xeon_keeps_layout(enum ggml_type type);

// Whether nobody has to wait between node number n and the one that follows it.
bool ggml_xeon_skips_barrier(const struct ggml_cgraph * graph, int n, const struct ggml_cplan * plan);

#ifdef __cplusplus
}
#endif
