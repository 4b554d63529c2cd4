#pragma once

// What the kernels compile for: one library for each of build.sh's CPU variants.

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define XEON_AVX2
#endif

#if defined(XEON_AVX2) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) &&                    \
    defined(__AVX512DQ__)
#define XEON_AVX512
#endif

#if defined(XEON_AVX512) && defined(__AVX512VNNI__)
#define XEON_VNNI
#endif

#if defined(XEON_VNNI) && defined(__AVX512BF16__) && defined(__AMX_TILE__) && defined(__AMX_BF16__) &&                 \
    defined(__linux__)
#define XEON_AMX
#endif
