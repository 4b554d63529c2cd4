// Product of block-quantized weights with fewer than GEMM_COLUMNS columns, as of a decoded token: straight from the
// blocks, so that the weights are read once and the memory is the limit.
//
// With AVX-512, two loads and two permutes bring four blocks of q4_0, q4_1, q5_0 or q5_1 into one vector, and 16 rows
// are added up at once. With AVX2, and for q8_0, scales are widened for 8 blocks at a time. No gather takes part: it is
// slow on every processor with the mitigation of CVE-2022-40982 (Skylake to Ice Lake). Integers and scales are those of
// ggml's dot products; only the order of additions differs.

#include "blocks.h"
#include "floats.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "kernels.h"

#include <algorithm>

#if defined(XEON_AVX2)

namespace ggml::xeon {

namespace {

constexpr size_t ALIGN = 64;

// The most columns that a row is multiplied with at a time, once it is unpacked: their sums are in registers.
constexpr int64_t TOGETHER = 6;

// Whether four blocks are unpacked at a time, one in each quarter of a vector. The bytes of q8_0 need no unpacking.
#if defined(XEON_AVX512)
template <typename block>
constexpr bool by_four = !std::is_same<block, block_q8_0>::value;
#else
template <typename block>
constexpr bool by_four = false;
#endif

// A quantized column: the bytes of its blocks, their scales dx and dx*sum(x), each padded to 16 blocks with zeros. For
// weights that are unpacked by four, the first halves of four blocks come before the second halves.
struct column {
    int8_t * q;
    float * d;
    float * s;
};

constexpr size_t column_size(int64_t nb) { return GGML_PAD(nb, 16) * (QK + 2 * sizeof(float)); }

inline column column_at(void * p, int64_t nb) {
    int8_t * q = (int8_t *) p;
    float * d = (float *) (q + GGML_PAD(nb, 16) * QK);
    return {q, d, d + GGML_PAD(nb, 16)};
}

template <bool halves, typename block>
void unpack_column(int64_t nb, const block * x, void * out) {
    const column c = column_at(out, nb);
    for (int64_t b = 0; b < GGML_PAD(nb, 16); b++) {
        int8_t * q = halves ? c.q + b / 4 * 4 * QK + b % 4 * 16 : c.q + b * QK;
        const int second = halves ? 4 * 16 : 16;
        if (b < nb) {
            memcpy(q, x[b].qs, 16);
            memcpy(q + second, x[b].qs + 16, 16);
            c.d[b] = _cvtsh_ss(x[b].d);
            c.s[b] = block_sum(x[b]);
        } else {
            memset(q, 0, 16);
            memset(q + second, 0, 16);
            c.d[b] = c.s[b] = 0;
        }
    }
}

inline float sum_256(__m256 a) {
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    t = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}

// Eight sums of four products each of a block's unsigned q and signed x.
template <typename block>
inline __m256 dot_32(__m256i q, const int8_t * x) {
    const __m256i xs = _mm256_loadu_si256((const __m256i *) x);
#if defined(XEON_VNNI)
    return _mm256_cvtepi32_ps(_mm256_dpbusd_epi32(_mm256_setzero_si256(), q, xs));
#else
    if constexpr (std::is_same<block, block_q8_0>::value) {
        const __m256i low = _mm256_madd_epi16(_mm256_maddubs_epi16(half_of(q, false), xs), _mm256_set1_epi16(1));
        const __m256i high = _mm256_madd_epi16(_mm256_maddubs_epi16(half_of(q, true), xs), _mm256_set1_epi16(16));
        return _mm256_cvtepi32_ps(_mm256_add_epi32(low, high));
    } else {
        return _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_maddubs_epi16(q, xs), _mm256_set1_epi16(1)));
    }
#endif
}

// Bytes between what is multiplied and what is fetched: the latency of memory, and rows follow each other.
constexpr size_t AHEAD = 2048;

#if defined(XEON_AVX512)

// Where the bytes of a vector are found in four blocks, which are loaded as their first and their last 64 bytes: an
// index for each unit of U bytes, taken from byte offset + j of block i for byte j < 16 of quarter i, j modulo
// `period`.
template <typename U, typename block, size_t offset, size_t period>
struct places {
    alignas(64) U at[64 / sizeof(U)];

    constexpr places() : at() {
        constexpr size_t second = 4 * sizeof(block) - 64;
        for (size_t u = 0; u < 64 / sizeof(U); u++) {
            const size_t byte = u * sizeof(U) / 16 * sizeof(block) + offset + u * sizeof(U) % 16 % period;
            at[u] = (U) (byte < 64 ? byte / sizeof(U) : (64 + byte - second) / sizeof(U));
        }
    }
};

// scale and minimum, or scale, of block i as unit i modulo 4
template <typename U, typename block>
struct places_of_scales {
    alignas(64) U at[64 / sizeof(U)];

    constexpr places_of_scales() : at() {
        constexpr size_t second = 4 * sizeof(block) - 64;
        for (size_t u = 0; u < 64 / sizeof(U); u++) {
            const size_t byte = u % 4 * sizeof(block);
            at[u] = (U) (byte < 64 ? byte / sizeof(U) : (64 + byte - second) / sizeof(U));
        }
    }
};

// Four blocks.
template <typename block>
struct four {
    using unit = std::conditional_t<sizeof(block) % 4 == 0, uint32_t, uint16_t>;

    __m512i first;
    __m512i last;

    four(const block * w)
        : first(_mm512_loadu_si512((const void *) w)), last(_mm512_loadu_si512((const char *) (w + 4) - 64)) {}

    __m512i pick(const unit * at) const {
        const __m512i index = _mm512_load_si512((const void *) at);
        return sizeof(unit) == 4 ? _mm512_permutex2var_epi32(first, index, last)
                                 : _mm512_permutex2var_epi16(first, index, last);
    }

    // the 16 first and the 16 second q of each block
    void quants(__m512i & low, __m512i & high) const {
        static constexpr places<unit, block, sizeof(block) - 16, 16> qs;
        const __m512i q = pick(qs.at);
        low = _mm512_and_si512(q, _mm512_set1_epi8(0xF));
        high = _mm512_and_si512(_mm512_srli_epi16(q, 4), _mm512_set1_epi8(0xF));
        if constexpr (has_fifth_bits<block>) {
            static constexpr places<unit, block, sizeof(block) - 20, 4> qh;
            const __m512i bits = pick(qh.at);
            const __m512i bit = _mm512_set1_epi64((long long) 0x8040201008040201);
            const __m512i one = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0101010101010101, 0));
            const __m512i two = _mm512_set1_epi8(2);
            const __m512i five = _mm512_set1_epi8(0x10);
            low = _mm512_mask_add_epi8(low, _mm512_test_epi8_mask(_mm512_shuffle_epi8(bits, one), bit), low, five);
            high = _mm512_mask_add_epi8(
                high, _mm512_test_epi8_mask(_mm512_shuffle_epi8(bits, _mm512_or_si512(one, two)), bit), high, five
            );
        }
    }

    // add the scales and minima to those of 16 blocks, as blocks 4*i to 4*i + 3
    __m512i scales(__m512i of_16, int i) const {
        static constexpr places_of_scales<unit, block> dm;
        return sizeof(unit) == 4 ? _mm512_mask_mov_epi32(of_16, (__mmask16) (0xF << 4 * i), pick(dm.at))
                                 : _mm512_mask_mov_epi16(of_16, (__mmask32) (0xF << 4 * i), pick(dm.at));
    }
};

// What a row adds up for a column.
struct sums {
    __m512 even = _mm512_setzero_ps();
    __m512 odd = _mm512_setzero_ps();
    __m512 minima = _mm512_setzero_ps();
};

// Add the products of G times four blocks, from block b of the row on, with each of N columns.
template <int G, int N, typename block>
inline void add_by_four(const block * w, const column * x, int64_t b, sums * sum) {
    constexpr __mmask16 live = (__mmask16) ((1u << 4 * G) - 1);
    const __m512i quarter = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);

    __m512i dm = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int i = 0; i < G; i++) {
        dm = four<block>(w + 4 * i).scales(dm, i);
    }
    __m512 d;
    __m512 m;
    if constexpr (has_minimum<block>) {
        d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(dm));
        m = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(dm, 16)));
    } else {
        d = _mm512_cvtph_ps(_mm512_castsi512_si256(dm));
        m = _mm512_mul_ps(d, _mm512_set1_ps(offset<block>));
    }
    __m512 scales[N];
#pragma GCC unroll 6
    for (int j = 0; j < N; j++) {
        sum[j].minima = _mm512_fmadd_ps(m, _mm512_maskz_loadu_ps(live, x[j].s + b), sum[j].minima);
        scales[j] = _mm512_mul_ps(d, _mm512_maskz_loadu_ps(live, x[j].d + b));
    }
#pragma GCC unroll 4
    for (int i = 0; i < G; i++) {
        __m512i low, high;
        four<block>(w + 4 * i).quants(low, high);
        const __m512i places = _mm512_add_epi32(quarter, _mm512_set1_epi32(4 * i));
#pragma GCC unroll 6
        for (int j = 0; j < N; j++) {
            const __m512i x0 = _mm512_loadu_si512((const void *) (x[j].q + (b + 4 * i) * QK));
            const __m512i x1 = _mm512_loadu_si512((const void *) (x[j].q + (b + 4 * i) * QK + 64));
#if defined(XEON_VNNI)
            const __m512i dot = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), low, x0), high, x1);
#else
            const __m512i dot = _mm512_madd_epi16(
                _mm512_add_epi16(_mm512_maddubs_epi16(low, x0), _mm512_maddubs_epi16(high, x1)), _mm512_set1_epi16(1)
            );
#endif
            __m512 & to = i % 2 ? sum[j].odd : sum[j].even;
            to = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_permutexvar_ps(places, scales[j]), to);
        }
    }
}

// A row times N columns, each result a vector whose elements are still to be added.
template <int N, typename block>
inline void dot_row_by_four(int64_t nb, const block * w, const column * x, __m512 * out) {
    sums sum[N];
    int64_t b = 0;
    for (; b + 16 <= nb; b += 16) {
        for (size_t i = 0; i < 16 * sizeof(block); i += 64) {
            _mm_prefetch((const char *) (w + b) + AHEAD + i, _MM_HINT_T0);
        }
        add_by_four<4, N>(w + b, x, b, sum);
    }
    for (size_t i = 0; i < (nb - b) * sizeof(block); i += 64) {
        _mm_prefetch((const char *) (w + b) + AHEAD + i, _MM_HINT_T0);
    }
    switch ((nb - b) / 4) {
        case 3: add_by_four<3, N>(w + b, x, b, sum); break;
        case 2: add_by_four<2, N>(w + b, x, b, sum); break;
        case 1: add_by_four<1, N>(w + b, x, b, sum); break;
        default: break;
    }
    if (nb % 4 != 0) {
        block rest[4] = {};
        b = nb / 4 * 4;
        memcpy(rest, w + b, (nb - b) * sizeof(block));
        add_by_four<1, N>(rest, x, b, sum);
    }
#pragma GCC unroll 6
    for (int j = 0; j < N; j++) {
        out[j] = _mm512_add_ps(_mm512_add_ps(sum[j].even, sum[j].odd), sum[j].minima);
    }
}

// Up to 16 rows, stride bytes apart, times N columns, whose results are out_stride floats apart.
template <int N, typename block>
inline void
dot_rows_by_four(int64_t nb, const char * w, size_t stride, int n, const column * x, float * out, size_t out_stride) {
    vec a[N][16];
    for (int i = 0; i < 16; i++) {
        vec row[N] = {};
        if (i < n) {
            dot_row_by_four<N>(nb, (const block *) (w + i * stride), x, row);
        }
        for (int j = 0; j < N; j++) {
            a[j][i] = row[j];
        }
    }
    for (int j = 0; j < N; j++) {
        _mm512_mask_storeu_ps(out + j * out_stride, (__mmask16) ((1u << n) - 1), reduce_rows(a[j], add));
    }
}

#endif

// A row times N columns.
template <int N, typename block>
inline void dot_row(int64_t nb, const block * w, const column * x, float * out) {
    __m256 even[N];
    __m256 odd[N];
    __m256 minima[N];
    float rest[N];
    for (int j = 0; j < N; j++) {
        even[j] = odd[j] = minima[j] = _mm256_setzero_ps();
        rest[j] = 0;
    }
    int64_t b = 0;
    for (; b + 8 <= nb; b += 8) {
        for (size_t i = 0; i < 8 * sizeof(block); i += 64) {
            _mm_prefetch((const char *) (w + b) + AHEAD + i, _MM_HINT_T0);
        }
        // the scales of 8 blocks at a time
        const block * v = w + b;
        const __m256 d =
            _mm256_cvtph_ps(_mm_setr_epi16(v[0].d, v[1].d, v[2].d, v[3].d, v[4].d, v[5].d, v[6].d, v[7].d));
        __m256 m;
        if constexpr (has_minimum<block>) {
            m = _mm256_cvtph_ps(_mm_setr_epi16(v[0].m, v[1].m, v[2].m, v[3].m, v[4].m, v[5].m, v[6].m, v[7].m));
        } else {
            m = _mm256_mul_ps(d, _mm256_set1_ps(offset<block>));
        }
        alignas(32) float dd[N][8];
#pragma GCC unroll 6
        for (int j = 0; j < N; j++) {
            minima[j] = _mm256_fmadd_ps(m, _mm256_loadu_ps(x[j].s + b), minima[j]);
            _mm256_store_ps(dd[j], _mm256_mul_ps(d, _mm256_loadu_ps(x[j].d + b)));
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            const __m256i q = quants(v[i]);
#pragma GCC unroll 6
            for (int j = 0; j < N; j++) {
                __m256 & to = i % 2 ? odd[j] : even[j];
                to = _mm256_fmadd_ps(dot_32<block>(q, x[j].q + (b + i) * QK), _mm256_set1_ps(dd[j][i]), to);
            }
        }
    }
    for (; b < nb; b++) {
        const __m256i q = quants(w[b]);
        for (int j = 0; j < N; j++) {
            even[j] =
                _mm256_fmadd_ps(dot_32<block>(q, x[j].q + b * QK), _mm256_set1_ps(scale(w[b]) * x[j].d[b]), even[j]);
            rest[j] += minimum(w[b]) * x[j].s[b];
        }
    }
    for (int j = 0; j < N; j++) {
        out[j] = sum_256(_mm256_add_ps(_mm256_add_ps(even[j], odd[j]), minima[j])) + rest[j];
    }
}

// Up to 16 rows, stride bytes apart, times N columns, whose results are out_stride floats apart.
template <int N, typename block>
void dot_rows(int64_t nb, const char * w, size_t stride, int n, const column * x, float * out, size_t out_stride) {
#if defined(XEON_AVX512)
    if constexpr (by_four<block>) {
        dot_rows_by_four<N, block>(nb, w, stride, n, x, out, out_stride);
        return;
    }
#endif
    for (int i = 0; i < n; i++) {
        float row[N];
        dot_row<N>(nb, (const block *) (w + i * stride), x, row);
        for (int j = 0; j < N; j++) {
            out[j * out_stride + i] = row[j];
        }
    }
}

// Rows first..last of all columns; each thread quantizes the columns for itself, which is less than waiting for others.
template <typename block>
void multiply(const ggml_tensor * op, ggml_type type, int64_t first, int64_t last, char * scratch) {
    const ggml_tensor * src0 = op->src[0];
    const ggml_tensor * src1 = op->src[1];
    const int64_t nb = src0->ne[0] / QK;
    const int64_t n = src1->ne[1];
    char * quantized = scratch + n * column_size(nb);
    for (int64_t j = 0; j < n; j++) {
        ggml_get_type_traits_cpu(type)->from_float(
            (const float *) ((const char *) src1->data + j * src1->nb[1]), quantized, nb * QK
        );
        if (type == GGML_TYPE_Q8_1) {
            unpack_column<by_four<block>>(nb, (const block_q8_1 *) quantized, scratch + j * column_size(nb));
        } else {
            unpack_column<by_four<block>>(nb, (const block_q8_0 *) quantized, scratch + j * column_size(nb));
        }
    }
    for (int64_t r = first; r < last; r += 16) {
        const char * w = (const char *) src0->data + r * src0->nb[1];
        const int m = (int) std::min<int64_t>(last - r, 16);
        int64_t parts = (n + TOGETHER - 1) / TOGETHER;
        for (int64_t j = 0, together; j < n; j += together, parts--) {
            column x[TOGETHER];
            together = (n - j + parts - 1) / parts;
            for (int64_t i = 0; i < together; i++) {
                x[i] = column_at(scratch + (j + i) * column_size(nb), nb);
            }
            float * out = (float *) ((char *) op->data + j * op->nb[1]) + r;
            const size_t out_stride = op->nb[1] / sizeof(float);
            switch (together) {
                case 1: dot_rows<1, block>(nb, w, src0->nb[1], m, x, out, out_stride); break;
                case 2: dot_rows<2, block>(nb, w, src0->nb[1], m, x, out, out_stride); break;
                case 3: dot_rows<3, block>(nb, w, src0->nb[1], m, x, out, out_stride); break;
                case 4: dot_rows<4, block>(nb, w, src0->nb[1], m, x, out, out_stride); break;
                case 5: dot_rows<5, block>(nb, w, src0->nb[1], m, x, out, out_stride); break;
                default: dot_rows<6, block>(nb, w, src0->nb[1], m, x, out, out_stride); break;
            }
        }
    }
}

// Bytes of scratch of each thread.
size_t thread_size(const ggml_tensor * op) {
    const int64_t k = op->src[0]->ne[0];
    return op->src[1]->ne[1] * column_size(k / QK) + GGML_PAD(ggml_row_size(GGML_TYPE_Q8_1, k), ALIGN);
}

bool is_taken(const ggml_tensor * op) { return is_product_of_blocks(op) && op->src[1]->ne[1] <= GEMV_COLUMNS; }

} // namespace

size_t gemv_work_size(const ggml_tensor * op, int n_threads) {
    return is_taken(op) ? ALIGN + n_threads * thread_size(op) : 0;
}

bool gemv(const ggml_compute_params * params, ggml_tensor * op) {
    if (!is_taken(op)) {
        return false;
    }
    GGML_ASSERT(params->wsize >= gemv_work_size(op, params->nth));
    const ggml_type type = op->src[0]->type;
    const ggml_type q8 = ggml_get_type_traits_cpu(type)->vec_dot_type;
    const int64_t rows = op->src[0]->ne[1];
    const int64_t first = rows * params->ith / params->nth;
    const int64_t last = rows * (params->ith + 1) / params->nth;
    char * scratch = (char *) GGML_PAD((uintptr_t) params->wdata, ALIGN) + params->ith * thread_size(op);
    switch (type) {
        case GGML_TYPE_Q4_0: multiply<block_q4_0>(op, q8, first, last, scratch); break;
        case GGML_TYPE_Q4_1: multiply<block_q4_1>(op, q8, first, last, scratch); break;
        case GGML_TYPE_Q5_0: multiply<block_q5_0>(op, q8, first, last, scratch); break;
        case GGML_TYPE_Q5_1: multiply<block_q5_1>(op, q8, first, last, scratch); break;
        case GGML_TYPE_Q8_0: multiply<block_q8_0>(op, q8, first, last, scratch); break;
        default: GGML_ABORT("fatal error");
    }
    return true;
}

} // namespace ggml::xeon

#endif
