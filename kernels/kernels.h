#pragma once

// The kernels, one after the other as xeon.cpp asks them. Of each: the bytes of params->wdata that it needs for op with
// n_threads threads, 0 if it does not take it, and the kernel itself, which all threads of params have to call. It
// returns false, with nothing done, if it does not take op. kernels.txt says what each is for.

#include "ggml-cpu-impl.h"
#include "ggml.h"

namespace ggml::xeon {

// Up to so many columns are multiplied straight from the blocks. With more it pays to lay out the weights first, where
// that is the only kernel with four or more.
constexpr int64_t GEMV_COLUMNS = 12;
constexpr int64_t GEMM_COLUMNS = 4;

// Products of weights in blocks with many columns, and with few.
size_t gemm_work_size(const ggml_tensor * op, int n_threads);
bool gemm(const ggml_compute_params * params, ggml_tensor * op);
size_t gemv_work_size(const ggml_tensor * op, int n_threads);
bool gemv(const ggml_compute_params * params, ggml_tensor * op);

// Products of two f16 matrices.
size_t convolution_work_size(const ggml_tensor * op, int n_threads);
bool convolution(const ggml_compute_params * params, ggml_tensor * op);

size_t attention_work_size(const ggml_tensor * op, int n_threads);
bool attention(const ggml_compute_params * params, ggml_tensor * op);

} // namespace ggml::xeon
