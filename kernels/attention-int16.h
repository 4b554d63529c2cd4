#pragma once

// Attention of many queries with VNNI: the products are of 16-bit integers, twice as many at a time as floats.
//
// A query and a key are scaled to a length of 46,000 each, as the sum of their products is not larger than the product
// of the lengths and has to fit 31 bits; exponentials have 14 bits, and V 12 bits of the largest of 32 keys, whose sum
// is then added up as float.

#include "attention.h"

#include <algorithm>
#include <cstring>

#if defined(XEON_ATTENTION_INT16)

namespace ggml::xeon {

constexpr float MAX_LENGTH = 46000.0f; // its square and some rounding fit 31 bits
constexpr float MAX_E = 16384.0f;
constexpr float MAX_V = 4095.0f; // 32*MAX_E*MAX_V fits 31 bits

// K: for 16 keys D/2 times (two elements of each), then the sizes of a key's units.
// V: for two keys D times (an element of each), then the sizes of the units of 32 keys.
struct packed_head {
    int32_t * k;
    float * k_unit;
    int32_t * v;
    float * v_unit;
};

inline packed_head packed_head_at(const attention_plan & p, char * at) {
    char * v = at + p.k_size;
    return {
        (int32_t *) at,
        (float *) (at + p.TP * p.D * sizeof(int16_t)),
        (int32_t *) v,
        (float *) (v + p.TP * p.D * sizeof(int16_t))
    };
}

// The D elements at load(d) times scale as integers of a length of MAX_LENGTH or less; returns the size of a unit.
template <typename Load>
inline float to_int16(const attention_plan & p, float scale, Load load, int16_t * out) {
    vec sum = zero(), largest = zero();
    for (int64_t d = 0; d < p.D; d += VL) {
        const vec x = load(d);
        sum = fma(x, x, sum);
        largest = max(largest, _mm512_abs_ps(x));
    }
    const float length = std::sqrt(reduce_add(sum));
    const float units = std::min(MAX_LENGTH / length, 32767.0f / reduce_max(largest));
    if (!(units > 0.0f && units < INFINITY)) { // all are zero, or next to it
        memset(out, 0, p.D * sizeof(int16_t));
        return 0.0f;
    }
    for (int64_t d = 0; d < p.D; d += VL) {
        _mm256_storeu_si256(
            (__m256i *) (out + d), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(mul(load(d), set1(units))))
        );
    }
    return scale / units;
}

// Keys and values t..t+31; zero beyond the last key.
inline void pack_kv_int16(const attention_plan & p, const head & h, int64_t t, const packed_head & out) {
    for (int64_t i = t; i < t + 32; i++) {
        alignas(64) int16_t row[MAX_D] = {};
        out.k_unit[i] = i < p.T ? to_int16(p, 1.0f, [&](int64_t d) { return load_f16(h.key(i) + d); }, row) : 0.0f;
        int32_t * k = out.k + i / 16 * 16 * p.D / 2 + i % 16;
        for (int64_t d = 0; d < p.D / 2; d++) {
            memcpy(k + d * 16, row + 2 * d, sizeof(int32_t));
        }
    }
    const auto value = [&](int64_t i, int64_t d) { return i < p.T ? load_f16(h.value(i) + d) : zero(); };
    for (int64_t d = 0; d < p.D; d += VL) {
        vec largest = zero();
        for (int64_t i = t; i < t + 32; i++) {
            largest = max(largest, _mm512_abs_ps(value(i, d)));
        }
        store(out.v_unit + t / 32 * p.D + d, mul(largest, set1(1 / MAX_V)));
        const __mmask16 some = _mm512_cmp_ps_mask(largest, zero(), _CMP_GT_OQ);
        const vec units = _mm512_maskz_div_ps(some, set1(MAX_V), largest);
        for (int64_t i = t; i < t + 32; i += 2) {
            const __m512i v0 = _mm512_cvtps_epi32(mul(value(i, d), units));
            const __m512i v1 = _mm512_cvtps_epi32(mul(value(i + 1, d), units));
            _mm512_storeu_si512(
                (void *) (out.v + i / 2 * p.D + d), _mm512_mask_blend_epi16(0xAAAAAAAA, v0, _mm512_slli_epi32(v1, 16))
            );
        }
    }
}

// c plus the products of pairs of integers
inline __m512i add_products(__m512i c, __m512i x, __m512i a) {
#if defined(__GNUC__)
    __asm__("vpdpwssd %2, %1, %0" : "+v"(c) : "v"(x), "v"(a)); // with the intrinsic, GCC 12 keeps the sums in memory
    return c;
#else
    return _mm512_dpwssd_epi32(c, x, a);
#endif
}

// c[i] = A[i][n] * B[n][2 vectors], n pairs of integers, rows of A lda integers apart, rows of B ldb pairs.
template <int M, typename Take>
inline void
product_int16(int n, const int16_t * A, int64_t lda, const int32_t * b0, const int32_t * b1, int64_t ldb, Take take) {
    __m512i c0[M], c1[M];
#pragma GCC unroll 12
    for (int i = 0; i < M; i++) {
        c0[i] = c1[i] = _mm512_setzero_si512();
    }
    for (int k = 0; k < n; k++) {
        const __m512i x0 = _mm512_loadu_si512((const void *) (b0 + k * ldb));
        const __m512i x1 = _mm512_loadu_si512((const void *) (b1 + k * ldb));
#pragma GCC unroll 12
        for (int i = 0; i < M; i++) {
            int32_t pair;
            memcpy(&pair, A + i * lda + 2 * k, sizeof(pair));
            const __m512i a = _mm512_set1_epi32(pair);
            c0[i] = add_products(c0[i], x0, a);
            c1[i] = add_products(c1[i], x1, a);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < M; i++) {
        take(i, _mm512_cvtepi32_ps(c0[i]), _mm512_cvtepi32_ps(c1[i]));
    }
}

// Attention of n <= MR queries at q, stride bytes apart; result i goes to out + i*out_stride bytes.
inline void attend_int16(
    const attention_plan & p,
    const packed_head & kv,
    const char * q,
    size_t stride,
    int n,
    char * out,
    size_t out_stride,
    float * scratch
) {
    int16_t * Q = (int16_t *) scratch;
    float * S = scratch + MR * p.D / 2;
    int16_t * P = (int16_t *) (S + MR * p.ld);
    float * O = S + MR * p.ld + MR * p.ld / 2;
    float unit[MR];
    for (int i = 0; i < MR; i++) {
        const float * row = (const float *) (q + std::min(i, n - 1) * stride);
        unit[i] = to_int16(p, p.scale * LOG2_E, [&](int64_t d) { return load(row + d); }, Q + i * p.D);
    }
    for (int64_t t = 0; t < p.TP; t += KC) {
        const int32_t * k = kv.k + t * p.D / 2;
        const float * u = kv.k_unit + t;
        product_int16<MR>((int) p.D / 2, Q, p.D, k, k + VL * p.D / 2, VL, [&](int i, vec s0, vec s1) {
            store(S + i * p.ld + t, mul(mul(s0, load(u)), set1(unit[i])));
            store(S + i * p.ld + t + VL, mul(mul(s1, load(u + VL)), set1(unit[i])));
        });
    }
    float inverse[MR];
    for (int i = 0; i < MR; i++) {
        inverse[i] = soft_max_32(p, S + i * p.ld, [&](int64_t t, __m512 & e0, __m512 & e1) {
            const __m512i i0 = _mm512_cvtps_epi32(mul(e0, set1(MAX_E)));
            const __m512i i1 = _mm512_cvtps_epi32(mul(e1, set1(MAX_E)));
            _mm256_storeu_si256((__m256i *) (P + i * p.ld + t), _mm512_cvtepi32_epi16(i0));
            _mm256_storeu_si256((__m256i *) (P + i * p.ld + t + VL), _mm512_cvtepi32_epi16(i1));
            e0 = _mm512_cvtepi32_ps(i0);
            e1 = _mm512_cvtepi32_ps(i1);
        });
    }
    for (int64_t d = 0; d < p.D; d += KC) {
        std::fill(O, O + MR * KC, 0.0f);
        for (int64_t t = 0; t < p.TP; t += 32) {
            const int32_t * v = kv.v + t / 2 * p.D + d;
            const float * u = kv.v_unit + t / 32 * p.D + d;
            product_int16<MR>(16, P + t, p.ld, v, v + VL, p.D, [&](int i, vec o0, vec o1) {
                store(O + i * KC, fma(o0, load(u), load(O + i * KC)));
                store(O + i * KC + VL, fma(o1, load(u + VL), load(O + i * KC + VL)));
            });
        }
        for (int i = 0; i < n; i++) {
            float * o = (float *) (out + i * out_stride) + d;
            store(o, mul(load(O + i * KC), set1(inverse[i])));
            store(o + VL, mul(load(O + i * KC + VL), set1(inverse[i])));
        }
    }
}

} // namespace ggml::xeon

#endif
