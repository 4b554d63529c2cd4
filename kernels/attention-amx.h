#pragma once

// Attention of many queries with AMX: Q and K are split into two bfloat16 each (a f16 of K fits exactly), of whose four
// products the smallest, 2^-18 of the whole, is left out; P and V are rounded to bfloat16, and the exponential is good
// for 2^-18. The error is that of rounding V once, well below that of the quantized product that follows.

#include "attention.h"
#include "tiles-bf16.h"

#include <algorithm>

#if defined(XEON_AMX)

namespace ggml::xeon {

// x as the sum of two bfloat16
inline void split(__m512 x0, __m512 x1, __m512i & high, __m512i & low) {
    high = to_bf16(x0, x1);
    const __m512 h0 = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(high)), 16));
    const __m512 h1 =
        _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(high, 1)), 16));
    low = to_bf16(_mm512_sub_ps(x0, h0), _mm512_sub_ps(x1, h1));
}

// K: for 16 keys the tiles of the high parts, one for 32 elements, then those of the low parts.
// V: for 32 keys a tile for 16 elements, keys in pairs.
inline void pack_kv_amx(const attention_plan & p, const head & h, int64_t t, char * K, char * V) {
    const int64_t ks = p.D / 32;
    for (int64_t i = t; i < t + 32; i += 16) {
        char * k = K + i / 16 * 2 * ks * TILE_BYTES;
        for (int64_t d = 0; d < ks; d++) {
            __m512i high[16], low[16];
            for (int j = 0; j < 16; j++) {
                high[j] = low[j] = _mm512_setzero_si512();
                if (i + j < p.T) {
                    split(load_f16(h.key(i + j) + d * 32), load_f16(h.key(i + j) + d * 32 + 16), high[j], low[j]);
                }
            }
            transpose_16x16(high);
            transpose_16x16(low);
            for (int j = 0; j < 16; j++) {
                _mm512_store_si512(k + d * TILE_BYTES + j * 64, high[j]);
                _mm512_store_si512(k + (ks + d) * TILE_BYTES + j * 64, low[j]);
            }
        }
    }
    char * v = V + t / 32 * 2 * ks * TILE_BYTES;
    for (int j = 0; j < 16; j++) {
        const int64_t a = t + 2 * j, b = a + 1;
        for (int64_t d = 0; d < 2 * ks; d++) {
            const __m512i x = to_bf16(
                a < p.T ? load_f16(h.value(a) + d * 16) : zero(), b < p.T ? load_f16(h.value(b) + d * 16) : zero()
            );
            const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(x));
            const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x, 1));
            _mm512_store_si512(v + d * TILE_BYTES + j * 64, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
    }
}

// Adds the products of two tiles of rows with two of columns for n steps of 32 to tiles 0-3.
inline void multiply_amx(
    int64_t n, const char * a0, const char * a1, size_t a_step, const char * b0, const char * b1, size_t b_step
) {
    for (int64_t k = 0; k < n; k++) {
        _tile_loadd(6, b0 + k * b_step, 64);
        _tile_loadd(4, a0 + k * a_step, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b1 + k * b_step, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a1 + k * a_step, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

inline void zero_amx() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

inline void store_amx(float * C, int64_t ldc) {
    _tile_stored(0, C, ldc * sizeof(float));
    _tile_stored(1, C + 16, ldc * sizeof(float));
    _tile_stored(2, C + 16 * ldc, ldc * sizeof(float));
    _tile_stored(3, C + 16 * ldc + 16, ldc * sizeof(float));
}

// As attend, of n <= 32 queries.
inline void attend_amx(
    const attention_plan & p,
    const char * K,
    const char * V,
    const char * q,
    size_t stride,
    int n,
    char * out,
    size_t out_stride,
    float * scratch
) {
    const int64_t ks = p.D / 32;
    const size_t tiles = ks * TILE_BYTES;
    char * Q = (char *) scratch; // 16 queries: tiles of the high parts, then of the low ones; 16 more
    float * S = scratch + 32 * p.D;
    char * P = (char *) (S + 32 * p.ld); // tiles of 16 queries and 32 keys
    float * O = (float *) (P + 32 * p.TP * sizeof(ggml_bf16_t));
    const size_t P_rows = p.TP / 32 * TILE_BYTES;

    const __m512 scale = _mm512_set1_ps(p.scale * LOG2_E);
    for (int i = 0; i < 32; i++) {
        const float * row = (const float *) (q + std::min(i, n - 1) * stride);
        char * at = Q + i / 16 * 2 * tiles + i % 16 * 64;
        for (int64_t d = 0; d < ks; d++) {
            __m512i high, low;
            split(mul(load(row + d * 32), scale), mul(load(row + d * 32 + 16), scale), high, low);
            _mm512_store_si512(at + d * TILE_BYTES, high);
            _mm512_store_si512(at + tiles + d * TILE_BYTES, low);
        }
    }
    const char * Q1 = Q + 2 * tiles;
    for (int64_t t = 0; t < p.TP; t += 32) {
        const char * k0 = K + t / 16 * 2 * tiles;
        const char * k1 = k0 + 2 * tiles;
        zero_amx();
        multiply_amx(ks, Q + tiles, Q1 + tiles, TILE_BYTES, k0, k1, TILE_BYTES);
        multiply_amx(ks, Q, Q1, TILE_BYTES, k0 + tiles, k1 + tiles, TILE_BYTES);
        multiply_amx(ks, Q, Q1, TILE_BYTES, k0, k1, TILE_BYTES);
        store_amx(S + t, p.ld);
    }
    float inverse[32];
    for (int i = 0; i < 32; i++) {
        char * row = P + i / 16 * P_rows + i % 16 * 64;
        inverse[i] = soft_max_32(p, S + i * p.ld, [&](int64_t t, __m512 & e0, __m512 & e1) {
            _mm512_store_si512(row + t / 32 * TILE_BYTES, to_bf16(e0, e1));
        });
    }
    for (int64_t d = 0; d < p.D; d += 32) {
        const char * v = V + d / 16 * TILE_BYTES;
        zero_amx();
        multiply_amx(p.TP / 32, P, P + P_rows, TILE_BYTES, v, v + TILE_BYTES, 2 * tiles);
        store_amx(O + d, p.D);
    }
    for (int i = 0; i < n; i++) {
        float * o = (float *) (out + i * out_stride);
        for (int64_t d = 0; d < p.D; d += 16) {
            store(o + d, mul(load(O + i * p.D + d), set1(inverse[i])));
        }
    }
}

} // namespace ggml::xeon

#endif
