#pragma once

// Blocks of 32 quantized weights, and of the columns that they are multiplied with, for the products.
//
// A weight is d*q + m with an unsigned q: q - 8 of q4_0, q - 16 of q5_0 and the signed byte of q8_0 become q with
// m = -8*d, -16*d and -128*d. So the product of two blocks is d*dx*dot(q, x) + m*dx*sum(x).

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

#include "cpu.h"
#include "ggml.h"

#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(XEON_AVX2)

namespace ggml::xeon {

constexpr int QK = 32; // weights in a block, of all types here

// Whether the products take weights of this type.
inline bool takes(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q5_1: return true;
#if defined(XEON_VNNI) || GGML_XEON_BYTES
        case GGML_TYPE_Q8_0: return true;
#endif
        default: return false;
    }
}

// Whether op multiplies a matrix of such weights with one of f32.
inline bool is_product_of_blocks(const ggml_tensor * op) {
    const ggml_tensor * src0 = op->src[0];
    const ggml_tensor * src1 = op->src[1];
    return takes(src0->type) && src1->type == GGML_TYPE_F32 && src0->ne[2] == 1 && src0->ne[3] == 1 &&
           src1->ne[2] == 1 && src1->ne[3] == 1 && src1->nb[0] == sizeof(float) && op->nb[0] == sizeof(float);
}

// The bytes q of a block in their order, and the scale and minimum of its weights d*q + m.

inline __m256i nibbles(const uint8_t * qs) {
    const __m128i q = _mm_loadu_si128((const __m128i *) qs);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(q, 4), q), _mm256_set1_epi8(0xF));
}

// 16 in each byte whose bit of h is set
inline __m256i fifth_bits(const uint8_t * qh) {
    uint32_t h;
    memcpy(&h, qh, sizeof(h));
#if defined(XEON_AVX512)
    return _mm256_maskz_set1_epi8(h, 0x10);
#else
    const __m256i bytes = _mm256_shuffle_epi8(
        _mm256_set1_epi32(h), _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0)
    );
    const __m256i bit = _mm256_set1_epi64x((long long) 0x8040201008040201);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit), _mm256_set1_epi8(0x10));
#endif
}

inline __m256i quants(const block_q4_0 & b) { return nibbles(b.qs); }
inline __m256i quants(const block_q4_1 & b) { return nibbles(b.qs); }
inline __m256i quants(const block_q5_0 & b) { return _mm256_or_si256(nibbles(b.qs), fifth_bits(b.qh)); }
inline __m256i quants(const block_q5_1 & b) { return _mm256_or_si256(nibbles(b.qs), fifth_bits(b.qh)); }
inline __m256i quants(const block_q8_0 & b) {
    return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *) b.qs), _mm256_set1_epi8((char) 0x80));
}

template <typename block>
inline float scale(const block & b) {
    return _cvtsh_ss(b.d);
}

inline float minimum(const block_q4_0 & b) { return -8 * scale(b); }
inline float minimum(const block_q4_1 & b) { return _cvtsh_ss(b.m); }
inline float minimum(const block_q5_0 & b) { return -16 * scale(b); }
inline float minimum(const block_q5_1 & b) { return _cvtsh_ss(b.m); }
inline float minimum(const block_q8_0 & b) { return -128 * scale(b); }

template <typename block>
constexpr bool has_minimum = std::is_same<block, block_q4_1>::value || std::is_same<block, block_q5_1>::value;
template <typename block>
constexpr bool has_fifth_bits = std::is_same<block, block_q5_0>::value || std::is_same<block, block_q5_1>::value;
template <typename block>
constexpr float offset = std::is_same<block, block_q4_0>::value   ? -8.0f
                         : std::is_same<block, block_q5_0>::value ? -16.0f
                                                                  : -128.0f;

// dx*sum(x) of a quantized block of a column
inline float block_sum(const block_q8_1 & x) { return _cvtsh_ss(x.s); }
inline float block_sum(const block_q8_0 & x) {
    const __m256i q = _mm256_loadu_si256((const __m256i *) x.qs);
    const __m256i s = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), q), _mm256_set1_epi16(1));
    __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4E));
    t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0xB1));
    return _cvtsh_ss(x.d) * (float) _mm_cvtsi128_si32(t);
}

// Without VNNI, products are summed in 16 bits. Those of q8_0 do not fit, so its bytes are multiplied as two halves of
// 4 bits.
inline __m256i half_of(__m256i q, bool high) {
    return _mm256_and_si256(high ? _mm256_srli_epi16(q, 4) : q, _mm256_set1_epi8(0xF));
}
#if defined(XEON_AVX512)
inline __m512i half_of(__m512i q, bool high) {
    return _mm512_and_si512(high ? _mm512_srli_epi16(q, 4) : q, _mm512_set1_epi8(0xF));
}
#endif

} // namespace ggml::xeon

#endif
