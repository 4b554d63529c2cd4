#pragma once

// Vectors of floats, AVX-512 or AVX2, and the f32 matrix product on them.

#include "cpu.h"

#if defined(XEON_AVX2)

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace ggml::xeon {

#if defined(XEON_AVX512)
constexpr int VL = 16; // floats in a vector
constexpr int MR = 12; // queries at a time: their sums stay in registers
typedef __m512 vec;
inline vec zero() { return _mm512_setzero_ps(); }
inline vec set1(float x) { return _mm512_set1_ps(x); }
inline vec load(const float * p) { return _mm512_loadu_ps(p); }
inline void store(float * p, vec x) { _mm512_storeu_ps(p, x); }
inline vec load_f16(const void * p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p)); }
inline vec fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
inline vec mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
inline vec add(vec a, vec b) { return _mm512_add_ps(a, b); }
inline vec sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
inline vec max(vec a, vec b) { return _mm512_max_ps(a, b); }
inline float reduce_max(vec a) { return _mm512_reduce_max_ps(a); }
inline float reduce_add(vec a) { return _mm512_reduce_add_ps(a); }
#else
constexpr int VL = 8;
constexpr int MR = 6;
typedef __m256 vec;
inline vec zero() { return _mm256_setzero_ps(); }
inline vec set1(float x) { return _mm256_set1_ps(x); }
inline vec load(const float * p) { return _mm256_loadu_ps(p); }
inline void store(float * p, vec x) { _mm256_storeu_ps(p, x); }
inline vec load_f16(const void * p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p)); }
inline vec fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
inline vec mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
inline vec add(vec a, vec b) { return _mm256_add_ps(a, b); }
inline vec sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
inline vec max(vec a, vec b) { return _mm256_max_ps(a, b); }
inline float reduce_max(vec a) {
    float t[8], m = -INFINITY;
    store(t, a);
    for (float x : t) {
        m = std::max(m, x);
    }
    return m;
}
inline float reduce_add(vec a) {
    float t[8], s = 0;
    store(t, a);
    for (float x : t) {
        s += x;
    }
    return s;
}
#endif

// A vector whose element i is op over the elements of a[i]; what a holds is lost.
#if defined(XEON_AVX512)
template <typename Op>
inline vec reduce_rows(vec * a, Op op) {
    // halve the vectors of pairs of rows until each row is one element
    for (int i = 0; i < 8; i++) {
        const vec low = _mm512_shuffle_f32x4(a[i], a[i + 8], 0x44);
        const vec high = _mm512_shuffle_f32x4(a[i], a[i + 8], 0xEE);
        a[i] = op(low, high);
    }
    for (int i = 0; i < 4; i++) {
        const vec low = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88);
        const vec high = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xDD);
        a[i] = op(low, high);
    }
    const vec b0 = op(_mm512_unpacklo_ps(a[0], a[2]), _mm512_unpackhi_ps(a[0], a[2]));
    const vec b1 = op(_mm512_unpacklo_ps(a[1], a[3]), _mm512_unpackhi_ps(a[1], a[3]));
    const vec c = op(_mm512_unpacklo_ps(b0, b1), _mm512_unpackhi_ps(b0, b1));
    return _mm512_shuffle_f32x4(c, c, 0xD8);
}
#else
template <typename Op>
inline vec reduce_rows(vec * a, Op op) {
    const auto halve = [&](vec x, vec y) { return op(_mm256_shuffle_ps(x, y, 0x88), _mm256_shuffle_ps(x, y, 0xDD)); };
    const vec b0 = halve(halve(a[0], a[1]), halve(a[2], a[3]));
    const vec b1 = halve(halve(a[4], a[5]), halve(a[6], a[7]));
    return op(_mm256_permute2f128_ps(b0, b1, 0x20), _mm256_permute2f128_ps(b0, b1, 0x31));
}
#endif

constexpr int KC = 2 * VL; // columns of a product at a time: two vectors

// C[M][KC] = A[M][n] * B[n][KC], rows of A and C lda and ldc floats apart, rows of B ldb
template <int M>
void product(int64_t n, const float * A, int64_t lda, const float * B, int64_t ldb, float * C, int64_t ldc) {
    vec c0[M], c1[M];
    for (int i = 0; i < M; i++) {
        c0[i] = c1[i] = zero();
    }
    for (int64_t k = 0; k < n; k++) {
        const vec b0 = load(B + k * ldb);
        const vec b1 = load(B + k * ldb + VL);
#pragma GCC unroll 12
        for (int i = 0; i < M; i++) {
            const vec a = set1(A[i * lda + k]);
            c0[i] = fma(a, b0, c0[i]);
            c1[i] = fma(a, b1, c1[i]);
        }
    }
    for (int i = 0; i < M; i++) {
        store(C + i * ldc, c0[i]);
        store(C + i * ldc + VL, c1[i]);
    }
}

} // namespace ggml::xeon

#endif
