// Attention over all keys.
//
// ggml's tiled path widens and transposes K and V again for every 64 queries. Here all threads do it once a head, into
// the layout that the two products read, and then take blocks of queries: S = Q*K, exact softmax of whole rows, P*V.
// Few queries, as the decoder's, read K and V where they are. In f32, only the order of additions differs from the
// reference.
//
// Takes GGML_OP_FLASH_ATTN_EXT of f32 queries and f16 keys and values without sinks, bias and softcap, with a mask only
// of few queries; heads of a multiple of 32 up to 128 elements.

#include "attention.h"

#include "attention-amx.h"
#include "attention-int16.h"
#include "attention-windows.h"
#include "ggml-cpu.h"
#include "kernels.h"
#include "simd-mappings.h"
#include "vec.h"

#include <algorithm>
#include <cstring>
#include <optional>

#if defined(XEON_AVX2)

namespace ggml::xeon {

namespace {

using plan = attention_plan;

constexpr int64_t MAX_PAIRS = 16; // of a head and a query, that a thread takes together
constexpr size_t ALIGN = 64;

// Fewer queries do not pay for laying out K and V.
constexpr int64_t MIN_QUERIES = 16;

// Bytes of scratch of each thread for few queries.
size_t few_size(const plan & p) {
    return GGML_PAD(std::min(p.heads * p.N, MAX_PAIRS) * (p.D + p.ld + p.D) * sizeof(float), ALIGN);
}

bool make_plan(const ggml_tensor * op, plan & p) {
    const ggml_tensor * q = op->src[0];
    const ggml_tensor * k = op->src[1];
    const ggml_tensor * v = op->src[2];
    float bias;
    float softcap;
    memcpy(&p.scale, (const float *) op->op_params + 0, sizeof(float));
    memcpy(&bias, (const float *) op->op_params + 1, sizeof(float));
    memcpy(&softcap, (const float *) op->op_params + 2, sizeof(float));

    p.D = q->ne[0];
    p.N = q->ne[1];
    p.heads = q->ne[2];
    p.T = k->ne[1];
    p.kv_heads = k->ne[2];
    p.few = p.N < MIN_QUERIES;
    const ggml_tensor * mask = op->src[3];
    if ((mask && (!p.few || mask->type != GGML_TYPE_F16 || mask->ne[2] != 1 || mask->ne[3] != 1)) || op->src[4] ||
        bias != 0.0f || softcap != 0.0f || q->type != GGML_TYPE_F32 || k->type != GGML_TYPE_F16 ||
        v->type != GGML_TYPE_F16 || p.D % 32 != 0 || p.D > MAX_D || k->ne[0] != p.D || v->ne[0] != p.D ||
        v->ne[1] != p.T || v->ne[2] != p.kv_heads || p.heads % p.kv_heads != 0 || q->ne[3] != 1 || k->ne[3] != 1 ||
        v->ne[3] != 1 || q->nb[0] != sizeof(float) || k->nb[0] != sizeof(ggml_fp16_t) ||
        v->nb[0] != sizeof(ggml_fp16_t)) {
        return false;
    }
    p.TP = GGML_PAD(p.T, 32);
    p.ld = p.TP + 16; // rows in different sets of the cache
    p.amx = false;
    p.block = MR;
    if (p.few) {
        p.k_size = p.v_size = 0;
        p.thread_size = few_size(p);
        return true;
    }
    p.k_size = p.D * p.TP * sizeof(float);
    p.v_size = p.D * p.TP * sizeof(float);
    size_t scratch = MR * p.D + MR * p.ld + MR * KC; // queries, scores, result
#if defined(XEON_ATTENTION_INT16)
    p.k_size = p.TP * (p.D * sizeof(int16_t) + sizeof(float));
    p.v_size = p.TP * p.D * sizeof(int16_t) + p.TP / 32 * p.D * sizeof(float);
    scratch = MR * p.D / 2 + MR * p.ld + MR * p.ld / 2 + MR * KC; // queries, scores, exponentials, result
#endif
#if defined(XEON_AMX)
    p.amx = amx_ready();
    if (p.amx) {
        p.block = 32;
        p.k_size = 2 * p.D * p.TP * sizeof(ggml_bf16_t);
        p.v_size = p.D * p.TP * sizeof(ggml_bf16_t);
        scratch =
            32 * p.D + 32 * p.ld + 32 * p.TP / 2 + 32 * p.D; // queries in two parts, scores, their exponentials, result
    }
#endif
    p.thread_size = GGML_PAD(scratch * sizeof(float), ALIGN);
    return true;
}

#if !defined(XEON_ATTENTION_INT16)

// Keys t..t+31 as D rows of KC, values as rows of D, widened; zero beyond the last key.
void pack_kv(const plan & p, const head & h, int64_t t, float * K, float * V) {
    for (int64_t i = t; i < t + 32; i++) {
        float row[MAX_D] = {};
        for (int64_t d = 0; d < p.D && i < p.T; d += VL) {
            store(row + d, load_f16(h.key(i) + d));
        }
        float * k = K + i / KC * KC * p.D + i % KC;
        for (int64_t d = 0; d < p.D; d++) {
            k[d * KC] = row[d];
        }
        for (int64_t d = 0; d < p.D; d += VL) {
            store(V + i * p.D + d, i < p.T ? load_f16(h.value(i) + d) : zero());
        }
    }
}

#endif

// Turn a row of scores into exponentials and return the reciprocal of their sum.
float soft_max(const plan & p, float * s) {
    for (int64_t t = p.T; t < p.TP; t++) {
        s[t] = -INFINITY;
    }
    vec m = set1(-INFINITY);
    for (int64_t t = 0; t < p.TP; t += VL) {
        m = max(m, load(s + t));
    }
    const float largest = reduce_max(m);
    if (largest == -INFINITY) {
        std::fill(s, s + p.TP, 0.0f);
        return 0.0f; // all keys are masked
    }
    m = set1(largest);
    vec sum = zero();
    for (int64_t t = 0; t < p.TP; t += VL) {
        const vec e = ggml_v_expf(sub(load(s + t), m));
        store(s + t, e);
        sum = add(sum, e);
    }
    return 1.0f / reduce_add(sum);
}

#if !defined(XEON_ATTENTION_INT16)

// Attention of n <= MR queries at q, stride bytes apart; result i goes to out + i*out_stride bytes.
void attend(
    const plan & p,
    const float * K,
    const float * V,
    const char * q,
    size_t stride,
    int n,
    char * out,
    size_t out_stride,
    float * scratch
) {
    float * Q = scratch;
    float * S = Q + MR * p.D;
    float * O = S + MR * p.ld;
    for (int i = 0; i < MR; i++) {
        const float * row = (const float *) (q + std::min(i, n - 1) * stride);
        for (int64_t d = 0; d < p.D; d += VL) {
            store(Q + i * p.D + d, mul(load(row + d), set1(p.scale)));
        }
    }
    for (int64_t t = 0; t < p.TP; t += KC) {
        product<MR>(p.D, Q, p.D, K + t * p.D, KC, S + t, p.ld);
    }
    float inverse[MR];
    for (int i = 0; i < n; i++) {
        inverse[i] = soft_max(p, S + i * p.ld);
    }
    for (int64_t d = 0; d < p.D; d += KC) {
        product<MR>(p.T, S, p.ld, V + d, p.D, O, KC);
        for (int i = 0; i < n; i++) {
            float * o = (float *) (out + i * out_stride) + d;
            store(o, mul(load(O + i * KC), set1(inverse[i])));
            store(o + VL, mul(load(O + i * KC + VL), set1(inverse[i])));
        }
    }
}

#endif

// Attention of n pairs of a head and a query straight from K and V, which are read once, in the order of memory: its
// bandwidth is the limit. A row of K or V holds the heads side by side, so they go through the keys together.
void attend_pairs(
    const plan & p,
    const head * heads,
    int64_t n,
    const float * const * q,
    const ggml_fp16_t * const * masks,
    float * const * out,
    float * scratch
) {
    constexpr int64_t KEYS = 16; // of all pairs at a time; as many more are fetched meanwhile
    float * Q = scratch;         // n*D
    float * O = Q + n * p.D;     // n*D
    float * S = O + n * p.D;     // n*ld
    for (int64_t h = 0; h < n; h++) {
        for (int64_t d = 0; d < p.D; d += VL) {
            store(Q + h * p.D + d, mul(load(q[h] + d), set1(p.scale)));
            store(O + h * p.D + d, zero());
        }
    }
    for (int64_t t = 0; t < p.T; t += VL) {
        for (int64_t h = 0; h < n; h++) {
            vec a[VL];
            for (int i = 0; i < VL; i++) {
                const ggml_fp16_t * key = heads[h].key(std::min(t + i, p.T - 1));
                const char * next = (const char *) heads[h].key(std::min(t + i + KEYS, p.T - 1));
                a[i] = zero();
                for (int64_t d = 0; d < p.D; d += VL) {
                    a[i] = fma(load_f16(key + d), load(Q + h * p.D + d), a[i]);
                }
                for (int64_t d = 0; d < p.D; d += 32) {
                    _mm_prefetch(next + d * sizeof(ggml_fp16_t), _MM_HINT_T0);
                }
            }
            store(S + h * p.ld + t, reduce_rows(a, add));
        }
    }
    float inverse[MAX_PAIRS];
    for (int64_t h = 0; h < n; h++) {
        float * s = S + h * p.ld;
        for (int64_t t = 0; masks[h] && t < p.T; t++) {
            s[t] += GGML_CPU_FP16_TO_FP32(masks[h][t]);
        }
        inverse[h] = soft_max(p, s);
    }
    for (int64_t t = 0; t < p.T; t += KEYS) {
        const int64_t end = std::min(t + KEYS, p.T);
        for (int64_t h = 0; h < n; h++) {
            for (int64_t d = 0; d < p.D; d += 2 * VL) {
                vec o0 = load(O + h * p.D + d);
                vec o1 = load(O + h * p.D + d + VL);
                for (int64_t i = t; i < end; i++) {
                    const vec e = set1(S[h * p.ld + i]);
                    _mm_prefetch((const char *) (heads[h].value(std::min(i + KEYS, p.T - 1)) + d), _MM_HINT_T0);
                    o0 = fma(e, load_f16(heads[h].value(i) + d), o0);
                    o1 = fma(e, load_f16(heads[h].value(i) + d + VL), o1);
                }
                store(O + h * p.D + d, o0);
                store(O + h * p.D + d + VL, o1);
            }
        }
    }
    for (int64_t h = 0; h < n; h++) {
        for (int64_t d = 0; d < p.D; d += VL) {
            store(out[h] + d, mul(load(O + h * p.D + d), set1(inverse[h])));
        }
    }
}

// Where the queries, keys, values and results of a few queries are: strides are in bytes.
struct few_queries {
    const char * q;
    size_t q_row;
    size_t q_head;
    head kv; // of the first head
    size_t k_head;
    size_t v_head;
    const char * mask; // of half floats, or nullptr
    size_t mask_row;
    char * out;
    size_t out_row;
    size_t out_head;
};

// Attention of heads first..last, which are neighbours and lie side by side in memory.
void attend_few(const plan & p, const few_queries & few, int64_t first, int64_t last, float * scratch) {
    const int64_t queries = std::min(p.N, MAX_PAIRS);
    const int64_t heads = MAX_PAIRS / queries;
    for (int64_t i = first; i < last; i += heads) {
        for (int64_t r = 0; r < p.N; r += queries) {
            head src[MAX_PAIRS];
            const float * in[MAX_PAIRS];
            const ggml_fp16_t * masks[MAX_PAIRS];
            float * out[MAX_PAIRS];
            int64_t n = 0;
            for (int64_t h = i; h < std::min(last, i + heads); h++) {
                const int64_t j = h / (p.heads / p.kv_heads);
                const head kv = {
                    few.kv.k + j * few.k_head, few.kv.k_stride, few.kv.v + j * few.v_head, few.kv.v_stride
                };
                for (int64_t l = r; l < std::min(p.N, r + queries); l++, n++) {
                    src[n] = kv;
                    in[n] = (const float *) (few.q + l * few.q_row + h * few.q_head);
                    masks[n] = few.mask ? (const ggml_fp16_t *) (few.mask + l * few.mask_row) : nullptr;
                    out[n] = (float *) (few.out + l * few.out_row + h * few.out_head);
                }
            }
            attend_pairs(p, src, n, in, masks, out, scratch);
        }
    }
}

char * aligned(void * p) { return (char *) GGML_PAD((uintptr_t) p, ALIGN); }

} // namespace

size_t attention_work_size(const ggml_tensor * op, int n_threads) {
    plan p;
    return make_plan(op, p) ? ALIGN + p.kv_heads * (p.k_size + p.v_size) + n_threads * p.thread_size : 0;
}

bool attention(const ggml_compute_params * params, ggml_tensor * op) {
    const ggml_tensor * q = op->src[0];
    const ggml_tensor * k = op->src[1];
    const ggml_tensor * v = op->src[2];
    const ggml_tensor * mask = op->src[3];
    plan p;
    if (!make_plan(op, p)) {
        return false;
    }
    GGML_ASSERT(params->wsize >= attention_work_size(op, params->nth));

    char * packed = aligned(params->wdata);
    float * scratch = (float *) (packed + p.kv_heads * (p.k_size + p.v_size) + params->ith * p.thread_size);

    if (p.few) {
        const few_queries few = {
            (const char *) q->data,
            q->nb[1],
            q->nb[2],
            {(const char *) k->data, k->nb[1], (const char *) v->data, v->nb[1]},
            k->nb[2],
            v->nb[2],
            mask ? (const char *) mask->data : nullptr,
            mask ? mask->nb[1] : 0,
            (char *) op->data,
            p.heads * op->nb[1],
            op->nb[1],
        };
        attend_few(p, few, p.heads * params->ith / params->nth, p.heads * (params->ith + 1) / params->nth, scratch);
        return true;
    }

    const int64_t groups = p.TP / 32;
    for (int64_t i = params->ith; i < p.kv_heads * groups; i += params->nth) {
        const int64_t h = i / groups;
        const head src = {
            (const char *) k->data + h * k->nb[2], k->nb[1], (const char *) v->data + h * v->nb[2], v->nb[1]
        };
        char * K = packed + h * (p.k_size + p.v_size);
#if defined(XEON_AMX)
        if (p.amx) {
            pack_kv_amx(p, src, i % groups * 32, K, K + p.k_size);
            continue;
        }
#endif
#if defined(XEON_ATTENTION_INT16)
        pack_kv_int16(p, src, i % groups * 32, packed_head_at(p, K));
#else
        pack_kv(p, src, i % groups * 32, (float *) K, (float *) (K + p.k_size));
#endif
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
    // neighbouring blocks are of one head, whose K and V then stay in the cache
    const int64_t blocks = (p.N + p.block - 1) / p.block;
    for (int64_t i = params->ith; i < p.heads * blocks; i = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t h = i / blocks;
        const int64_t r = i % blocks * p.block;
        const int n = (int) std::min(p.N - r, p.block);
        char * K = packed + h / (p.heads / p.kv_heads) * (p.k_size + p.v_size);
        const char * Q = (const char *) q->data + r * q->nb[1] + h * q->nb[2];
        char * O = (char *) op->data + (h + r * p.heads) * op->nb[1];
#if defined(XEON_AMX)
        if (p.amx) {
            attend_amx(p, K, K + p.k_size, Q, q->nb[1], n, O, p.heads * op->nb[1], scratch);
            continue;
        }
#endif
#if defined(XEON_ATTENTION_INT16)
        attend_int16(p, packed_head_at(p, K), Q, q->nb[1], n, O, p.heads * op->nb[1], scratch);
#else
        attend(p, (const float *) K, (const float *) (K + p.k_size), Q, q->nb[1], n, O, p.heads * op->nb[1], scratch);
#endif
    }
    return true;
}

} // namespace ggml::xeon

#endif

#if GGML_XEON_TOGETHER

size_t ggml_xeon_windows_size(int64_t heads, int64_t d, int64_t keys) {
#if defined(XEON_AVX2)
    using namespace ggml::xeon;
    plan p = {};
    p.heads = heads;
    p.N = MAX_PAIRS;
    p.D = d;
    p.ld = GGML_PAD(keys, 32) + 16;
    return few_size(p);
#else
    GGML_UNUSED(heads);
    GGML_UNUSED(d);
    GGML_UNUSED(keys);
    return 0;
#endif
}

void ggml_xeon_attend_windows(ggml_tensor * dst, int ith, int nth, void * userdata) {
#if defined(XEON_AVX2)
    using namespace ggml::xeon;
    const ggml_xeon_windows & all = *(const ggml_xeon_windows *) userdata;
    const ggml_tensor * q = dst->src[0];
    const int64_t first = all.heads * ith / nth;
    const int64_t last = all.heads * (ith + 1) / nth;
    for (int i = 0; i < all.n; i++) {
        const ggml_xeon_window & each = all.windows[i];
        plan p = {};
        p.D = dst->ne[0] / all.heads;
        p.heads = p.kv_heads = all.heads;
        p.N = each.n;
        p.T = each.keys;
        p.TP = GGML_PAD(p.T, 32);
        p.ld = p.TP + 16;
        p.scale = all.scale;
        const size_t row = dst->ne[0] * sizeof(ggml_fp16_t);
        // a thread's own heads, so that nobody waits for the others
        for (int64_t r = 0; each.stores && r < each.n; r++) {
            const size_t at = (each.slot + r) * row;
            for (const auto & [src, to] : {std::pair(dst->src[1], each.k), std::pair(dst->src[2], each.v)}) {
                const float * from = (const float *) ((const char *) src->data + (each.first + r) * src->nb[1]);
                ggml_cpu_fp32_to_fp16(
                    from + first * p.D, (ggml_fp16_t *) ((char *) to + at) + first * p.D, (last - first) * p.D
                );
            }
        }
        const size_t head_size = p.D * sizeof(ggml_fp16_t);
        const few_queries few = {
            (const char *) q->data + each.first * q->nb[1],
            q->nb[1],
            p.D * sizeof(float),
            {(const char *) each.k, row, (const char *) each.v, row},
            head_size,
            head_size,
            (const char *) each.mask,
            each.keys * sizeof(ggml_fp16_t),
            (char *) dst->data + each.first * dst->nb[1],
            dst->nb[1],
            p.D * sizeof(float),
        };
        attend_few(p, few, first, last, (float *) ((char *) all.scratch + ith * all.thread_size));
    }
#else
    GGML_ABORT("needs AVX2");
#endif
}

#endif
