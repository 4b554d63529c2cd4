// Compare the patched kernels of ggml's CPU backend with its reference path and with float64, and print the errors.
//
//   check MAX_THREADS
//
// Each case runs with 1 to MAX_THREADS threads: all have to give the same bits. A result has to be the reference's within
// the order of additions, or at least as close to float64 as the reference is; attention with AMX rounds to bfloat16 and may
// be 2.5e-3 off, relative to the result's size. Exit status 1 and lines with FAILED name the cases that failed.

#include "ggml-cpu.h"
#include "ggml.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

static uint32_t seed = 1;

static float uniform() { // -1 to 1
    seed = seed*1664525u + 1013904223u;
    return (float) (int32_t) seed/2147483648.0f;
}

static float normal() {
    return (uniform() + uniform() + uniform())*1.0f;
}

static std::vector<float> run(ggml_context * ctx, ggml_tensor * result, int threads, bool use_ref) {
    ggml_cgraph * graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, result);
    ggml_cplan plan = ggml_graph_plan(graph, threads, nullptr);
    plan.use_ref = use_ref;
    std::vector<uint8_t> work(plan.work_size);
    plan.work_data = work.data();
    memset(result->data, 0xFF, ggml_nbytes(result)); // NaN shows what nobody wrote
    if (ggml_graph_compute(graph, &plan) != GGML_STATUS_SUCCESS) {
        fprintf(stderr, "the graph was not computed\n");
        exit(2);
    }
    const float * data = (const float *) result->data;
    return std::vector<float>(data, data + ggml_nelements(result));
}

static double rms(const std::vector<double> & a, const std::vector<float> & b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); i++) {
        sum += (a[i] - b[i])*(a[i] - b[i]);
    }
    return std::sqrt(sum/a.size());
}

static int failures = 0;

// near: relative distance from the reference that the order of additions explains; allowed: error that is good enough
static void check(const std::string & name, ggml_context * ctx, ggml_tensor * result, int max_threads, double near, double allowed,
                  const std::vector<double> & exact) {
    const std::vector<float> reference = run(ctx, result, 1, true);
    const std::vector<float> one       = run(ctx, result, 1, false);
    const std::vector<double> wide(reference.begin(), reference.end());
    const double size = rms(exact, std::vector<float>(exact.size(), 0.0f));
    const double ours = rms(exact, one)/size, theirs = rms(exact, reference)/size, apart = rms(wide, one)/size;
    std::string verdict = apart <= near || ours <= theirs || ours <= allowed ? "ok" : "FAILED: neither near the reference nor as good";
    for (int threads = 2; threads <= max_threads; threads++) {
        const std::vector<float> more = run(ctx, result, threads, false);
        if (memcmp(more.data(), one.data(), one.size()*sizeof(float)) != 0) {
            verdict = "FAILED: other bits with " + std::to_string(threads) + " threads";
        }
    }
    printf("%-44s error %.2e, reference's %.2e, between them %.2e: %s\n", name.c_str(), ours, theirs, apart, verdict.c_str());
    failures += verdict != "ok";
}

static void with_context(const std::function<void(ggml_context *)> & body) {
    ggml_init_params params = { (size_t) 512 << 20, nullptr, false };
    ggml_context * ctx = ggml_init(params);
    body(ctx);
    ggml_free(ctx);
}

static void check_product(ggml_type type, int64_t k, int64_t rows, int64_t cols, int max_threads) {
    with_context([&](ggml_context * ctx) {
        ggml_tensor * w = ggml_new_tensor_2d(ctx, type, k, rows);
        ggml_tensor * x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, k, cols);
        std::vector<float> values(k*rows);
        for (float & v : values) {
            v = normal();
        }
        ggml_quantize_chunk(type, values.data(), w->data, 0, rows, k, nullptr);
        ggml_get_type_traits(type)->to_float(w->data, values.data(), values.size());
        for (int64_t i = 0; i < k*cols; i++) {
            ((float *) x->data)[i] = i % 97 == 0 ? 10*normal() : normal();
        }
        std::vector<double> exact(rows*cols);
        for (int64_t j = 0; j < cols; j++) {
            for (int64_t i = 0; i < rows; i++) {
                double sum = 0;
                for (int64_t l = 0; l < k; l++) {
                    sum += (double) values[i*k + l]*((const float *) x->data)[j*k + l];
                }
                exact[j*rows + i] = sum;
            }
        }
        char name[96];
        snprintf(name, sizeof(name), "%s %lld x %lld, %lld columns", ggml_type_name(type), (long long) rows, (long long) k, (long long) cols);
        check(name, ctx, ggml_mul_mat(ctx, w, x), max_threads, 1e-5, 0, exact);
    });
}

static void check_attention(int64_t d, int64_t heads, int64_t kv_heads, int64_t queries, int64_t keys, float spread, int max_threads) {
    with_context([&](ggml_context * ctx) {
        // as whisper.cpp lays them out: heads side by side in a row
        ggml_tensor * q = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, d, heads, queries);
        ggml_tensor * k = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, d, kv_heads, keys);
        ggml_tensor * v = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, d, kv_heads, keys);
        for (int64_t i = 0; i < ggml_nelements(q); i++) {
            ((float *) q->data)[i] = spread*normal();
        }
        for (int64_t i = 0; i < ggml_nelements(k); i++) {
            ((ggml_fp16_t *) k->data)[i] = ggml_fp32_to_fp16(normal());
            ((ggml_fp16_t *) v->data)[i] = ggml_fp32_to_fp16(normal());
        }
        const float scale = 1.0f/std::sqrt((float) d);
        std::vector<double> exact(d*heads*queries);
        std::vector<double> p(keys);
        for (int64_t n = 0; n < queries; n++) {
            for (int64_t h = 0; h < heads; h++) {
                const int64_t kh = h/(heads/kv_heads);
                const float * row = (const float *) q->data + (n*heads + h)*d;
                double largest = -INFINITY, sum = 0;
                for (int64_t t = 0; t < keys; t++) {
                    const ggml_fp16_t * key = (const ggml_fp16_t *) k->data + (t*kv_heads + kh)*d;
                    p[t] = 0;
                    for (int64_t l = 0; l < d; l++) {
                        p[t] += (double) row[l]*ggml_fp16_to_fp32(key[l])*scale;
                    }
                    largest = std::fmax(largest, p[t]);
                }
                for (double & e : p) {
                    e = std::exp(e - largest);
                    sum += e;
                }
                for (int64_t t = 0; t < keys; t++) {
                    const ggml_fp16_t * value = (const ggml_fp16_t *) v->data + (t*kv_heads + kh)*d;
                    for (int64_t l = 0; l < d; l++) {
                        exact[(n*heads + h)*d + l] += p[t]/sum*ggml_fp16_to_fp32(value[l]);
                    }
                }
            }
        }
        ggml_tensor * result = ggml_flash_attn_ext(ctx, ggml_permute(ctx, q, 0, 2, 1, 3), ggml_permute(ctx, k, 0, 2, 1, 3),
                ggml_permute(ctx, v, 0, 2, 1, 3), nullptr, scale, 0.0f, 0.0f);
        char name[96];
        snprintf(name, sizeof(name), "attention %lld, %lld/%lld heads, %lld on %lld, x%g", (long long) d, (long long) heads,
                 (long long) kv_heads, (long long) queries, (long long) keys, spread);
        check(name, ctx, result, max_threads, 1e-5, ggml_cpu_has_amx_int8() ? 2.5e-3 : 0, exact);
    });
}

int main(int argc, char ** argv) {
    const int max_threads = argc > 1 ? atoi(argv[1]) : 4;
    for (ggml_type type : { GGML_TYPE_Q5_1, GGML_TYPE_Q5_0, GGML_TYPE_Q4_1, GGML_TYPE_Q4_0, GGML_TYPE_Q8_0 }) {
        check_product(type, 32, 1, 4, max_threads);
        check_product(type, 64, 17, 5, max_threads);
        check_product(type, 96, 16, 33, max_threads);
        check_product(type, 352, 131, 49, max_threads);
        check_product(type, 768, 200, 12, max_threads);
        check_product(type, 3072, 47, 16, max_threads);
    }
    for (int64_t cols : { 1, 2, 3, 6, 7, 11, 13, 15, 17, 31, 32, 100 }) {
        check_product(GGML_TYPE_Q5_1, 160, 39, cols, max_threads);
    }
    check_attention(64, 3, 3, 100, 150, 1, max_threads);
    check_attention(64, 2, 2, 16, 1, 1, max_threads);
    check_attention(64, 2, 1, 33, 31, 4, max_threads);
    check_attention(32, 5, 5, 47, 512, 8, max_threads);
    check_attention(96, 2, 2, 65, 97, 1, max_threads);
    check_attention(128, 1, 1, 24, 256, 1, max_threads);
    check_attention(64, 4, 4, 5, 70, 2, max_threads);
    if (failures) {
        fprintf(stderr, "%d cases failed\n", failures);
    }
    return failures ? 1 : 0;
}
