// Product of block-quantized weights (src0) with the columns of an f32 matrix (src1).
//
// ggml's dot products read and unpack a row of weights again for every column. Here a panel of rows is laid side by
// side, one row a lane, and unpacked to bytes once; a group of columns, quantized to q8 as for the dot products, is
// laid side by side as well, so that each multiplication takes four bytes of one column, broadcast, and four bytes of
// every row. The sums stay in registers and the scales are applied once a block. The arithmetic is that of the dot
// products (the same blocks, scales and integers): only the order of the additions of floats differs.
//
// With AMX and bfloat16 tiles, the weights are unpacked to bfloat16 and the columns rounded to it, and sums are f32
// throughout: the rounding error of a column's element, 2^-9 of itself, is less than that of q8, 2^-8 of the block's
// largest.

#include "blocks.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "kernels.h"
#include "tiles-bf16.h"

#include <algorithm>
#include <optional>

#if defined(XEON_AVX2)

namespace ggml::xeon {

namespace {

constexpr size_t ALIGN = 64;

// Unpacked weights that a thread keeps, about a quarter of a level 2 cache.
constexpr int64_t PANEL_BYTES = 384 * 1024;

#if defined(XEON_AVX512)
constexpr int NR = 16; // rows of weights in a panel
#else
constexpr int NR = 8;
#endif

#if defined(XEON_VNNI)
constexpr int MR = 12; // columns in a group: their sums stay in registers
#elif defined(XEON_AVX512)
constexpr int MR = 8;
#else
constexpr int MR = 6;
#endif

// A panel: for each block 8 times (4 bytes of each of NR rows), then NR scales of each block, then NR minima of each
// block.
struct panel {
    uint8_t * q;
    float * d;
    float * m;
};

constexpr size_t panel_size(int64_t nb) { return nb * NR * (QK + 2 * sizeof(float)); }

inline panel panel_at(void * p, int64_t nb) {
    uint8_t * q = (uint8_t *) p;
    float * d = (float *) (q + nb * NR * QK);
    return {q, d, d + nb * NR};
}

// Unpack n <= NR rows; the lanes of those that are missing become zero.
template <typename block>
void pack_rows(int64_t nb, const char * rows, size_t stride, int n, void * out) {
    const panel p = panel_at(out, nb);
    uint32_t * q = (uint32_t *) p.q;
    for (int r = 0; r < NR; r++) {
        const block * row = (const block *) (rows + r * stride);
        for (int64_t b = 0; b < nb; b++) {
            alignas(32) uint32_t t[8] = {};
            if (r < n) {
                _mm256_store_si256((__m256i *) t, quants(row[b]));
            }
            for (int k = 0; k < 8; k++) {
                q[(b * 8 + k) * NR + r] = t[k];
            }
            p.d[b * NR + r] = r < n ? scale(row[b]) : 0.0f;
            p.m[b * NR + r] = r < n ? minimum(row[b]) : 0.0f;
        }
    }
}

// A group of columns: for each block 8 times (4 bytes of each of MR columns), then MR scales dx, then MR dx*sum(x).
struct group {
    uint32_t * q;
    float * d;
    float * s;
};

constexpr size_t group_size(int64_t nb) { return nb * MR * (QK + 2 * sizeof(float)); }

inline group group_at(void * p, int64_t nb) {
    uint32_t * q = (uint32_t *) p;
    float * d = (float *) (q + nb * 8 * MR);
    return {q, d, d + nb * MR};
}

// Put the quantized column x into lane i of a group.
template <typename block>
void pack_col(int64_t nb, const block * x, int i, void * out) {
    const group g = group_at(out, nb);
    for (int64_t b = 0; b < nb; b++) {
        uint32_t t[8];
        memcpy(t, x[b].qs, sizeof(t));
        for (int k = 0; k < 8; k++) {
            g.q[(b * 8 + k) * MR + i] = t[k];
        }
        g.d[b * MR + i] = _cvtsh_ss(x[b].d);
        g.s[b * MR + i] = block_sum(x[b]);
    }
}

// Product of a panel with the first M columns of a group: C[i*ldc + r] for column i and row r.
#if defined(XEON_AVX512)
template <int M, bool by_halves>
void kernel(int64_t nb, panel w, group x, float * C, int64_t ldc) {
    __m512 f[M];
    for (int i = 0; i < M; i++) {
        f[i] = _mm512_setzero_ps();
    }
    for (int64_t b = 0; b < nb; b++) {
        __m512i a[M];
#if defined(XEON_VNNI)
#pragma GCC unroll 12
        for (int i = 0; i < M; i++) {
            a[i] = _mm512_setzero_si512();
        }
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++) {
            const __m512i q = _mm512_load_si512((const void *) (w.q + (b * 8 + k) * 4 * NR));
#pragma GCC unroll 12
            for (int i = 0; i < M; i++) {
                a[i] = _mm512_dpbusd_epi32(a[i], q, _mm512_set1_epi32((int) x.q[(b * 8 + k) * MR + i]));
            }
        }
#else
        // four products of at most 31*127, twice: 2*4*31*127 fits 16 bits
#pragma GCC unroll 4
        for (int g = 0; g < (by_halves ? 4 : 2); g++) {
            const int half = g / 2;
            __m512i h[M];
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                const int64_t at = b * 8 + g % 2 * 4 + k;
                __m512i q = _mm512_load_si512((const void *) (w.q + at * 4 * NR));
                if constexpr (by_halves) {
                    q = half_of(q, half);
                }
#pragma GCC unroll 8
                for (int i = 0; i < M; i++) {
                    const __m512i t = _mm512_maddubs_epi16(q, _mm512_set1_epi32((int) x.q[at * MR + i]));
                    h[i] = k ? _mm512_add_epi16(h[i], t) : t;
                }
            }
#pragma GCC unroll 8
            for (int i = 0; i < M; i++) {
                const __m512i t = _mm512_madd_epi16(h[i], _mm512_set1_epi16(half ? 16 : 1));
                a[i] = g ? _mm512_add_epi32(a[i], t) : t;
            }
        }
#endif
        const __m512 d = _mm512_load_ps(w.d + b * NR);
        const __m512 m = _mm512_load_ps(w.m + b * NR);
#pragma GCC unroll 12
        for (int i = 0; i < M; i++) {
            const __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(a[i]), _mm512_set1_ps(x.d[b * MR + i]));
            f[i] = _mm512_fmadd_ps(t, d, f[i]);
            f[i] = _mm512_fmadd_ps(m, _mm512_set1_ps(x.s[b * MR + i]), f[i]);
        }
    }
    for (int i = 0; i < M; i++) {
        _mm512_storeu_ps(C + i * ldc, f[i]);
    }
}
#else
template <int M, bool by_halves>
void kernel(int64_t nb, panel w, group x, float * C, int64_t ldc) {
    __m256 f[M];
    for (int i = 0; i < M; i++) {
        f[i] = _mm256_setzero_ps();
    }
    for (int64_t b = 0; b < nb; b++) {
        __m256i a[M];
        // four products of at most 31*127, twice: 2*4*31*127 fits 16 bits
#pragma GCC unroll 4
        for (int g = 0; g < (by_halves ? 4 : 2); g++) {
            const int half = g / 2;
            __m256i h[M];
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                const int64_t at = b * 8 + g % 2 * 4 + k;
                __m256i q = _mm256_load_si256((const __m256i *) (w.q + at * 4 * NR));
                if constexpr (by_halves) {
                    q = half_of(q, half);
                }
#pragma GCC unroll 6
                for (int i = 0; i < M; i++) {
                    const __m256i t = _mm256_maddubs_epi16(q, _mm256_set1_epi32((int) x.q[at * MR + i]));
                    h[i] = k ? _mm256_add_epi16(h[i], t) : t;
                }
            }
#pragma GCC unroll 6
            for (int i = 0; i < M; i++) {
                const __m256i t = _mm256_madd_epi16(h[i], _mm256_set1_epi16(half ? 16 : 1));
                a[i] = g ? _mm256_add_epi32(a[i], t) : t;
            }
        }
        const __m256 d = _mm256_load_ps(w.d + b * NR);
        const __m256 m = _mm256_load_ps(w.m + b * NR);
#pragma GCC unroll 6
        for (int i = 0; i < M; i++) {
            const __m256 t = _mm256_mul_ps(_mm256_cvtepi32_ps(a[i]), _mm256_broadcast_ss(x.d + b * MR + i));
            f[i] = _mm256_fmadd_ps(t, d, f[i]);
            f[i] = _mm256_fmadd_ps(m, _mm256_broadcast_ss(x.s + b * MR + i), f[i]);
        }
    }
    for (int i = 0; i < M; i++) {
        _mm256_storeu_ps(C + i * ldc, f[i]);
    }
}
#endif

template <int M>
void kernel_n(int n, bool by_halves, int64_t nb, panel w, group x, float * C, int64_t ldc) {
    if constexpr (M > 1) {
        if (n < M) {
            kernel_n<M - 1>(n, by_halves, nb, w, x, C, ldc);
            return;
        }
    }
#if defined(XEON_VNNI)
    kernel<M, false>(nb, w, x, C, ldc);
    GGML_UNUSED(by_halves);
#else
    by_halves ? kernel<M, true>(nb, w, x, C, ldc) : kernel<M, false>(nb, w, x, C, ldc);
#endif
}

#if defined(XEON_AMX)

// Tiles 0-3 are sums of 16 columns x 16 rows, 4-5 hold 16 columns x 32 k, 6-7 hold 32 k x 16 rows, k in pairs.
constexpr int TM = 16;

// Unpack n <= 16 rows to tiles of bfloat16, 1 KiB a block.
template <typename block>
void pack_rows_bf16(int64_t nb, const char * rows, size_t stride, int n, void * out) {
    for (int64_t b = 0; b < nb; b++) {
        __m512i r[NR];
        for (int i = 0; i < NR; i++) {
            if (i < n) {
                const block & w = ((const block *) (rows + i * stride))[b];
                const __m256i q = quants(w);
                const __m512 d = _mm512_set1_ps(scale(w));
                const __m512 m = _mm512_set1_ps(minimum(w));
                const __m512 q0 = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm256_castsi256_si128(q)));
                const __m512 q1 = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm256_extracti128_si256(q, 1)));
                r[i] = to_bf16(_mm512_fmadd_ps(q0, d, m), _mm512_fmadd_ps(q1, d, m));
            } else {
                r[i] = _mm512_setzero_si512();
            }
        }
        transpose_16x16(r);
        for (int i = 0; i < NR; i++) {
            _mm512_store_si512((char *) out + b * TILE_BYTES + i * 64, r[i]);
        }
    }
}

// Round a column to bfloat16 as row i of the tiles at out.
void pack_col_bf16(int64_t nb, const float * x, int i, void * out) {
    for (int64_t b = 0; b < nb; b++) {
        const __m512i v = to_bf16(_mm512_loadu_ps(x + b * QK), _mm512_loadu_ps(x + b * QK + 16));
        _mm512_store_si512((char *) out + b * TILE_BYTES + i * 64, v);
    }
}

// Product of CT tiles of columns with RT tiles of rows.
template <int CT, int RT>
void kernel_amx(int64_t nb, const char * x, const char * w, float * C, int64_t ldc) {
    const size_t tiles = nb * TILE_BYTES;
    _tile_zero(0);
    if (RT > 1) _tile_zero(1);
    if (CT > 1) _tile_zero(2);
    if (CT > 1 && RT > 1) _tile_zero(3);
    for (int64_t b = 0; b < nb; b++) {
        _tile_loadd(6, w + b * TILE_BYTES, 64);
        _tile_loadd(4, x + b * TILE_BYTES, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (RT > 1) {
            _tile_loadd(7, w + tiles + b * TILE_BYTES, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (CT > 1) {
            _tile_loadd(5, x + tiles + b * TILE_BYTES, 64);
            _tile_dpbf16ps(2, 5, 6);
        }
        if (CT > 1 && RT > 1) {
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, C, ldc * sizeof(float));
    if (RT > 1) _tile_stored(1, C + NR, ldc * sizeof(float));
    if (CT > 1) _tile_stored(2, C + TM * ldc, ldc * sizeof(float));
    if (CT > 1 && RT > 1) _tile_stored(3, C + TM * ldc + NR, ldc * sizeof(float));
}

#endif // XEON_AMX

struct plan {
    int64_t nb; // blocks in a row of weights
    int64_t rows;
    int64_t cols;
    bool amx;
    bool by_halves;     // how the weights' bytes are multiplied
    size_t row_panel;   // bytes of NR unpacked rows
    int64_t col_group;  // columns packed together
    size_t col_panel;   // bytes of these
    size_t cols_size;   // bytes of all packed columns, shared by the threads
    int64_t panels;     // row panels unpacked at a time
    size_t thread_size; // bytes of scratch of each thread
};

bool make_plan(const ggml_tensor * op, int n_threads, plan & p) {
    const ggml_tensor * src0 = op->src[0];
    const ggml_tensor * src1 = op->src[1];
    if (!is_product_of_blocks(op) || src1->ne[1] < GEMM_COLUMNS) {
        return false;
    }
    p.nb = src0->ne[0] / QK;
    p.rows = src0->ne[1];
    p.cols = src1->ne[1];
    p.amx = false;
    p.by_halves = src0->type == GGML_TYPE_Q8_0;
    p.row_panel = panel_size(p.nb);
    p.col_group = MR;
    p.col_panel = group_size(p.nb);
#if defined(XEON_AMX)
    if (p.cols >= TM && amx_ready()) {
        p.amx = true;
        p.row_panel = p.nb * TILE_BYTES;
        p.col_group = TM;
        p.col_panel = p.nb * TILE_BYTES;
    }
#endif
    p.cols_size = GGML_PAD((p.cols + p.col_group - 1) / p.col_group * p.col_panel, ALIGN);

    // As many panels as the cache holds, in a number of chunks that the threads can share evenly.
    const int64_t panels = (p.rows + NR - 1) / NR;
    const int64_t in_cache = std::max<int64_t>(PANEL_BYTES / p.row_panel, 1);
    const int64_t rounds = (panels + in_cache * n_threads - 1) / (in_cache * n_threads);
    p.panels = (panels + rounds * n_threads - 1) / (rounds * n_threads);

    p.thread_size = std::max<size_t>(p.panels * p.row_panel, GGML_PAD(ggml_row_size(GGML_TYPE_Q8_1, p.nb * QK), ALIGN));
    return true;
}

void * aligned(void * p) { return (void *) GGML_PAD((uintptr_t) p, ALIGN); }

template <typename block>
void pack_rows_any(const plan & p, const char * rows, size_t stride, int n, void * out) {
#if defined(XEON_AMX)
    if (p.amx) {
        pack_rows_bf16<block>(p.nb, rows, stride, n, out);
        return;
    }
#endif
    pack_rows<block>(p.nb, rows, stride, n, out);
}

// Pack column j into the shared buffer; scratch holds it quantized.
void pack_column(const plan & p, ggml_type type, const float * x, int64_t j, char * cols, void * scratch) {
    char * out = cols + j / p.col_group * p.col_panel;
    const int i = (int) (j % p.col_group);
#if defined(XEON_AMX)
    if (p.amx) {
        pack_col_bf16(p.nb, x, i, out);
        return;
    }
#endif
    ggml_get_type_traits_cpu(type)->from_float(x, scratch, p.nb * QK);
    if (type == GGML_TYPE_Q8_1) {
        pack_col(p.nb, (const block_q8_1 *) scratch, i, out);
    } else {
        pack_col(p.nb, (const block_q8_0 *) scratch, i, out);
    }
}

// Product of n rows in unpacked panels with all columns; C is the first of these rows in dst.
void multiply(const plan & p, char * panels, int64_t n, char * cols, float * C, int64_t ldc) {
#if defined(XEON_AMX)
    if (p.amx) {
        alignas(64) float edge[4 * TM * NR];
        for (int64_t j = 0; j < p.cols; j += 2 * TM) {
            const int nc = (int) std::min<int64_t>(p.cols - j, 2 * TM);
            const char * x = cols + j / TM * p.col_panel;
            for (int64_t r = 0; r < n; r += 2 * NR) {
                const int nr = (int) std::min<int64_t>(n - r, 2 * NR);
                const bool whole = nr % NR == 0 && nc % TM == 0;
                const char * w = panels + r / NR * p.row_panel;
                float * out = whole ? C + j * ldc + r : edge;
                const int64_t ld = whole ? ldc : 2 * NR;
                if (nc > TM) {
                    nr > NR ? kernel_amx<2, 2>(p.nb, x, w, out, ld) : kernel_amx<2, 1>(p.nb, x, w, out, ld);
                } else {
                    nr > NR ? kernel_amx<1, 2>(p.nb, x, w, out, ld) : kernel_amx<1, 1>(p.nb, x, w, out, ld);
                }
                for (int i = 0; !whole && i < nc; i++) {
                    memcpy(C + (j + i) * ldc + r, edge + i * ld, nr * sizeof(float));
                }
            }
        }
        return;
    }
#endif
    alignas(64) float edge[MR * NR];
    for (int64_t j = 0; j < p.cols; j += MR) {
        const int nc = (int) std::min<int64_t>(p.cols - j, MR);
        const group x = group_at(cols + j / MR * p.col_panel, p.nb);
        for (int64_t r = 0; r < n; r += NR) {
            const int nr = (int) std::min<int64_t>(n - r, NR);
            const panel w = panel_at(panels + r / NR * p.row_panel, p.nb);
            if (nr == NR) {
                kernel_n<MR>(nc, p.by_halves, p.nb, w, x, C + j * ldc + r, ldc);
                continue;
            }
            kernel_n<MR>(nc, p.by_halves, p.nb, w, x, edge, NR);
            for (int i = 0; i < nc; i++) {
                memcpy(C + (j + i) * ldc + r, edge + i * NR, nr * sizeof(float));
            }
        }
    }
}

} // namespace

size_t gemm_work_size(const ggml_tensor * op, int n_threads) {
    // fewer threads than planned may come, each with more scratch
    size_t size = 0;
    for (int n = 1; n <= n_threads; n++) {
        plan p;
        if (!make_plan(op, n, p)) {
            return 0;
        }
        size = std::max(size, ALIGN + p.cols_size + n * p.thread_size);
    }
    return size;
}

bool gemm(const ggml_compute_params * params, ggml_tensor * op) {
    const ggml_tensor * src0 = op->src[0];
    const ggml_tensor * src1 = op->src[1];
    plan p;
    if (!make_plan(op, params->nth, p)) {
        return false;
    }
    GGML_ASSERT(params->wsize >= ALIGN + p.cols_size + params->nth * p.thread_size);

    char * cols = (char *) aligned(params->wdata);
    char * scratch = cols + p.cols_size + params->ith * p.thread_size;

    const ggml_type q8 = ggml_get_type_traits_cpu(src0->type)->vec_dot_type;
    for (int64_t j = p.cols * params->ith / params->nth; j < p.cols * (params->ith + 1) / params->nth; j++) {
        pack_column(p, q8, (const float *) ((const char *) src1->data + j * src1->nb[1]), j, cols, scratch);
    }
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

#if defined(XEON_AMX)
    std::optional<tile_scope> tiles;
    if (p.amx) {
        tiles.emplace();
    }
#endif
    const int64_t chunk = p.panels * NR;
    for (int64_t r = params->ith * chunk; r < p.rows; r = ggml_threadpool_chunk_add(params->threadpool, 1) * chunk) {
        const int64_t n = std::min(p.rows - r, chunk);
        for (int64_t i = 0; i < n; i += NR) {
            const char * rows = (const char *) src0->data + (r + i) * src0->nb[1];
            const int m = (int) std::min<int64_t>(n - i, NR);
            char * out = scratch + i / NR * p.row_panel;
            switch (src0->type) {
                case GGML_TYPE_Q4_0: pack_rows_any<block_q4_0>(p, rows, src0->nb[1], m, out); break;
                case GGML_TYPE_Q4_1: pack_rows_any<block_q4_1>(p, rows, src0->nb[1], m, out); break;
                case GGML_TYPE_Q5_0: pack_rows_any<block_q5_0>(p, rows, src0->nb[1], m, out); break;
                case GGML_TYPE_Q5_1: pack_rows_any<block_q5_1>(p, rows, src0->nb[1], m, out); break;
                case GGML_TYPE_Q8_0: pack_rows_any<block_q8_0>(p, rows, src0->nb[1], m, out); break;
                default: GGML_ABORT("fatal error");
            }
        }
        multiply(p, scratch, n, cols, (float *) op->data + r, op->nb[1] / sizeof(float));
    }
    return true;
}

} // namespace ggml::xeon

#endif
