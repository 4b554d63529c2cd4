#pragma once

// AMX tiles of bfloat16, shared by the matrix product and attention.

#include "cpu.h"

#if defined(XEON_AMX)

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

namespace ggml::xeon {

// All eight tiles have 16 rows of 64 bytes: 16x16 sums, 16x32 factors, 32x16 factors with k in pairs.
constexpr size_t TILE_BYTES = 1024;

struct tile_config {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t colsb[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Holds the tiles for a scope and leaves what was configured before, as other code keeps a configuration for good.
struct tile_scope {
    tile_config before;

    tile_scope() {
        static const tile_config config;
        _tile_storeconfig(&before);
        // GCC 12's intrinsics say that they write and read 8 of the 64 bytes.
        __asm__ volatile("" : : "r"(&before) : "memory");
        _tile_loadconfig(&config);
    }
    ~tile_scope() {
        if (before.palette) {
            _tile_loadconfig(&before);
        } else {
            _tile_release();
        }
    }
};

// Linux lends a process the tiles on demand.
inline bool amx_ready() {
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023;
    constexpr long XFEATURE_XTILEDATA = 18;
    static const bool ready = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
    return ready;
}

inline __m512i to_bf16(__m512 low, __m512 high) { return (__m512i) _mm512_cvtne2ps_pbh(high, low); }

inline void transpose_16x16(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i + 0] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        r[4 * i + 0] = _mm512_unpacklo_epi64(t[4 * i + 0], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i + 0], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i + 0] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xDD);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xDD);
    }
    for (int i = 0; i < 4; i++) {
        r[i + 0] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xDD);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xDD);
    }
}

} // namespace ggml::xeon

#endif
