#pragma once

// What the ways to compute attention share: attention.cpp in floats, attention-int16.h, attention-amx.h.

#include "floats.h"
#include "ggml-impl.h"
#include "ggml.h"

#include <cmath>
#include <cstdint>

#if defined(XEON_AVX2)

#if defined(XEON_VNNI) && GGML_XEON_ATTENTION_INT16
#define XEON_ATTENTION_INT16
#endif

namespace ggml::xeon {

constexpr int MAX_D = 128; // elements of a head

struct attention_plan {
    int64_t D; // elements of a head
    int64_t heads;
    int64_t kv_heads;
    int64_t N;  // queries
    int64_t T;  // keys
    int64_t TP; // keys, padded to 32
    int64_t ld; // floats of a row of scores
    float scale;
    bool few; // queries: K and V are read where they are
    bool amx;
    int64_t block; // queries at a time
    size_t k_size; // bytes of K of a head, laid out
    size_t v_size;
    size_t thread_size; // bytes of scratch of each thread
};

struct head {
    const char * k;
    size_t k_stride;
    const char * v;
    size_t v_stride;

    const ggml_fp16_t * key(int64_t t) const { return (const ggml_fp16_t *) (k + t * k_stride); }
    const ggml_fp16_t * value(int64_t t) const { return (const ggml_fp16_t *) (v + t * v_stride); }
};

#if defined(XEON_ATTENTION_INT16) || defined(XEON_AMX)

constexpr float LOG2_E = 1.4426950408889634f;

// 2^x for x <= 0, relative error 3e-6
inline __m512 exp2_fast(__m512 x) {
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, n);
    __m512 y = _mm512_set1_ps(0.009570101276040077f);
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.05591785907745361f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.240247443318367f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.6931217908859253f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.9999992847442627f));
    return _mm512_scalef_ps(y, n);
}

// Exponentials, in base 2, of a row of scores: put(t, e0, e1) gets those of keys t to t + 31, zero beyond the last, and
// may round them. Returns the reciprocal of their sum.
template <typename Put>
inline float soft_max_32(const attention_plan & p, const float * s, Put put) {
    const int64_t whole = p.T & ~31;
    const int64_t rest = p.T - whole;
    const __mmask16 rest0 = (__mmask16) (rest >= 16 ? 0xFFFF : (1u << rest) - 1);
    const __mmask16 rest1 = (__mmask16) (rest > 16 ? (1u << (rest - 16)) - 1 : 0);
    const __m512 none = _mm512_set1_ps(-INFINITY);

    __m512 m0 = none, m1 = none;
    for (int64_t t = 0; t < whole; t += 32) {
        m0 = _mm512_max_ps(m0, _mm512_loadu_ps(s + t));
        m1 = _mm512_max_ps(m1, _mm512_loadu_ps(s + t + 16));
    }
    if (rest) {
        m0 = _mm512_max_ps(m0, _mm512_mask_loadu_ps(none, rest0, s + whole));
        m1 = _mm512_max_ps(m1, _mm512_mask_loadu_ps(none, rest1, s + whole + 16));
    }
    const __m512 m = _mm512_set1_ps(_mm512_reduce_max_ps(_mm512_max_ps(m0, m1)));

    __m512 sum0 = zero(), sum1 = zero();
    for (int64_t t = 0; t < whole; t += 32) {
        __m512 e0 = exp2_fast(_mm512_sub_ps(_mm512_loadu_ps(s + t), m));
        __m512 e1 = exp2_fast(_mm512_sub_ps(_mm512_loadu_ps(s + t + 16), m));
        put(t, e0, e1);
        sum0 = _mm512_add_ps(sum0, e0);
        sum1 = _mm512_add_ps(sum1, e1);
    }
    if (rest) {
        __m512 e0 = _mm512_maskz_mov_ps(rest0, exp2_fast(_mm512_sub_ps(_mm512_loadu_ps(s + whole), m)));
        __m512 e1 = _mm512_maskz_mov_ps(rest1, exp2_fast(_mm512_sub_ps(_mm512_loadu_ps(s + whole + 16), m)));
        put(whole, e0, e1);
        sum0 = _mm512_add_ps(sum0, e0);
        sum1 = _mm512_add_ps(sum1, e1);
    }
    return 1.0f / _mm512_reduce_add_ps(_mm512_add_ps(sum0, sum1));
}

#endif

} // namespace ggml::xeon

#endif
