// Compare our kernels in ggml's CPU backend with its reference path and with float64, and print the errors.
//
//   check MAX_THREADS [STEP]
//
// Each case runs with 1 to MAX_THREADS threads, above 4 with every STEP-th number only: all have to give the same bits. A result
// has to be the reference's within the order of additions, or at least as close to float64 as the reference is; attention with
// AMX rounds to bfloat16 and may be 2.5e-3 off, relative to the result's size. Exit status 1 and lines with FAILED name the cases
// that failed.

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
static int step = 1;

// near: relative distance from the reference that the order of additions explains, below 0 where ours is the only path;
// allowed: error that is good enough
static void check(const std::string & name, ggml_context * ctx, ggml_tensor * result, int max_threads, double near, double allowed,
                  const std::vector<double> & exact) {
    const std::vector<float> reference = run(ctx, result, 1, true);
    const std::vector<float> one       = run(ctx, result, 1, false);
    const std::vector<double> wide(reference.begin(), reference.end());
    const double size = rms(exact, std::vector<float>(exact.size(), 0.0f));
    const double ours = rms(exact, one)/size, theirs = rms(exact, reference)/size, apart = rms(wide, one)/size;
    std::string verdict = apart <= near || ours < theirs || ours <= allowed ? "ok" : "FAILED: neither near the reference nor as good";
    for (int threads = 2; threads <= max_threads; threads += threads < 4 ? 1 : step) {
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

// bias: a row that is added to the product: not at all, elsewhere, or where the product is
enum class bias { none, apart, in_place };

static void check_product(ggml_type type, int64_t k, int64_t rows, int64_t cols, int max_threads, bias where = bias::none) {
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
        ggml_tensor * b = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, rows);
        for (int64_t i = 0; i < rows; i++) {
            ((float *) b->data)[i] = where == bias::none ? 0 : 5*normal();
        }
        std::vector<double> exact(rows*cols);
        for (int64_t j = 0; j < cols; j++) {
            for (int64_t i = 0; i < rows; i++) {
                double sum = ((const float *) b->data)[i];
                for (int64_t l = 0; l < k; l++) {
                    sum += (double) values[i*k + l]*((const float *) x->data)[j*k + l];
                }
                exact[j*rows + i] = sum;
            }
        }
        char name[96];
        snprintf(name, sizeof(name), "%s %lld x %lld, %lld columns%s", ggml_type_name(type), (long long) rows, (long long) k, (long long) cols,
                 where == bias::none ? "" : ", bias");
        ggml_tensor * product = ggml_mul_mat(ctx, w, x);
        ggml_tensor * result  = where == bias::apart    ? ggml_add(ctx, product, b) :
                                where == bias::in_place ? ggml_add_inplace(ctx, product, b) : product;
        check(name, ctx, result, max_threads, 1e-5, 0, exact);
    });
}

// Columns that are multiplied together have the bits that each has alone, so that who decodes beside a window changes nothing.
static void check_columns(ggml_type type, int64_t k, int64_t rows, int64_t most) {
    with_context([&](ggml_context * ctx) {
        ggml_tensor * w = ggml_new_tensor_2d(ctx, type, k, rows);
        ggml_tensor * x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, k, most);
        std::vector<float> values(k*rows);
        for (float & v : values) {
            v = normal();
        }
        ggml_quantize_chunk(type, values.data(), w->data, 0, rows, k, nullptr);
        for (int64_t i = 0; i < k*most; i++) {
            ((float *) x->data)[i] = normal();
        }
        const auto columns = [&](int64_t first, int64_t n) {
            return run(ctx, ggml_mul_mat(ctx, w, ggml_view_2d(ctx, x, k, n, x->nb[1], first*x->nb[1])), 2, false);
        };
        int64_t differ = 0;
        for (int64_t n = 2; n <= most; n++) {
            const std::vector<float> together = columns(0, n);
            for (int64_t j = 0; j < n; j++) {
                differ += memcmp(columns(j, 1).data(), together.data() + j*rows, rows*sizeof(float)) != 0;
            }
        }
        printf("%s %lld x %lld, 2 to %lld columns as each alone: %s\n", ggml_type_name(type), (long long) rows, (long long) k,
               (long long) most, differ ? "FAILED" : "ok");
        failures += differ != 0;
    });
}

// as the convolutions of the encoder: both f16
static void check_f16(int64_t k, int64_t rows, int64_t cols, int max_threads) {
    with_context([&](ggml_context * ctx) {
        ggml_tensor * a = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, k, rows);
        ggml_tensor * b = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, k, cols);
        for (ggml_tensor * t : { a, b }) {
            for (int64_t i = 0; i < ggml_nelements(t); i++) {
                ((ggml_fp16_t *) t->data)[i] = ggml_fp32_to_fp16(normal());
            }
        }
        std::vector<double> exact(rows*cols);
        for (int64_t j = 0; j < cols; j++) {
            for (int64_t i = 0; i < rows; i++) {
                for (int64_t l = 0; l < k; l++) {
                    exact[j*rows + i] += (double) ggml_fp16_to_fp32(((const ggml_fp16_t *) a->data)[i*k + l])*
                                         ggml_fp16_to_fp32(((const ggml_fp16_t *) b->data)[j*k + l]);
                }
            }
        }
        char name[96];
        snprintf(name, sizeof(name), "f16 %lld x %lld, %lld columns", (long long) rows, (long long) k, (long long) cols);
        check(name, ctx, ggml_mul_mat(ctx, a, b), max_threads, 1e-5, 0, exact);
    });
}

static void check_gelu(int64_t n, int64_t rows, int max_threads) {
    with_context([&](ggml_context * ctx) {
        ggml_tensor * x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n, rows);
        std::vector<double> exact(n*rows);
        for (int64_t i = 0; i < n*rows; i++) {
            const float v = i % 31 == 0 ? 40*normal() : 3*normal();
            ((float *) x->data)[i] = v;
            exact[i] = 0.5*v*(1 + std::tanh(std::sqrt(2/M_PI)*v*(1 + 0.044715*(double) v*v)));
        }
        char name[96];
        snprintf(name, sizeof(name), "gelu of %lld x %lld", (long long) rows, (long long) n);
        check(name, ctx, ggml_gelu(ctx, x), max_threads, -1, 1e-6, exact);
    });
}

// One token through what a decoder's layer does between its products: nodes of one row, of one thread each. The reference's
// own result takes the place of the exact one; where its integers round to another q8, that is 5e-3 at most.
static void check_chain(int64_t n, int max_threads) {
    with_context([&](ggml_context * ctx) {
        const auto row = [&](float size) {
            ggml_tensor * t = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n);
            for (int64_t i = 0; i < n; i++) {
                ((float *) t->data)[i] = size*normal();
            }
            return t;
        };
        const auto weights = [&]() {
            ggml_tensor * t = ggml_new_tensor_2d(ctx, GGML_TYPE_Q5_1, n, n);
            std::vector<float> values(n*n);
            for (float & v : values) {
                v = normal()/std::sqrt((float) n);
            }
            ggml_quantize_chunk(GGML_TYPE_Q5_1, values.data(), t->data, 0, n, n, nullptr);
            return t;
        };
        ggml_tensor * x = row(1);
        for (int layer = 0; layer < 3; layer++) {
            ggml_tensor * y = ggml_add(ctx, ggml_mul(ctx, ggml_norm(ctx, x, 1e-5f), row(1)), row(0.1f));
            y = ggml_gelu(ctx, ggml_add(ctx, ggml_mul_mat(ctx, weights(), y), row(0.1f)));
            y = ggml_scale(ctx, ggml_add(ctx, ggml_mul_mat(ctx, weights(), y), row(0.1f)), 0.5f);
            x = ggml_add(ctx, x, y);
        }
        const std::vector<float> reference = run(ctx, x, 1, true);
        check("decoder's chain of " + std::to_string(n), ctx, x, max_threads, 1e-5, 5e-3,
              std::vector<double>(reference.begin(), reference.end()));
    });
}

static void check_attention(int64_t d, int64_t heads, int64_t kv_heads, int64_t queries, int64_t keys, float spread, int max_threads,
                            bool masked = false) {
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
        // query n sees the first half of the keys and n more, with a bias
        ggml_tensor * mask = masked ? ggml_new_tensor_2d(ctx, GGML_TYPE_F16, keys, queries) : nullptr;
        const auto bias = [&](int64_t n, int64_t t) { return t <= keys/2 + n ? 0.25f*(t % 3) : -INFINITY; };
        for (int64_t i = 0; masked && i < keys*queries; i++) {
            ((ggml_fp16_t *) mask->data)[i] = ggml_fp32_to_fp16(bias(i/keys, i%keys));
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
                    p[t] += masked ? bias(n, t) : 0.0;
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
                ggml_permute(ctx, v, 0, 2, 1, 3), mask, scale, 0.0f, 0.0f);
        char name[96];
        snprintf(name, sizeof(name), "attention %lld, %lld/%lld heads, %lld on %lld, x%g%s", (long long) d, (long long) heads,
                 (long long) kv_heads, (long long) queries, (long long) keys, spread, masked ? ", mask" : "");
        check(name, ctx, result, max_threads, 1e-5, ggml_cpu_has_amx_int8() ? 2.5e-3 : 0, exact);
    });
}

int main(int argc, char ** argv) {
    const int max_threads = argc > 1 ? atoi(argv[1]) : 4;
    step = argc > 2 ? atoi(argv[2]) : 1;
    for (ggml_type type : { GGML_TYPE_Q5_1, GGML_TYPE_Q5_0, GGML_TYPE_Q4_1, GGML_TYPE_Q4_0, GGML_TYPE_Q8_0 }) {
        check_product(type, 32, 1, 4, max_threads);
        check_product(type, 64, 17, 5, max_threads);
        check_product(type, 96, 16, 33, max_threads);
        check_product(type, 352, 131, 49, max_threads);
        check_product(type, 768, 200, 12, max_threads);
        check_product(type, 3072, 47, 16, max_threads);
        // one column is taken 16 blocks of weights at a time, in four times four: some left over, some missing
        for (int64_t k : { 32, 96, 128, 544, 768, 3072 }) {
            check_product(type, k, 33, 1, max_threads);
        }
        check_product(type, 672, 9, 3, max_threads);
    }
    for (int64_t cols : { 1, 2, 3, 6, 7, 11, 13, 15, 17, 31, 32, 100 }) {
        check_product(GGML_TYPE_Q5_1, 160, 39, cols, max_threads);
    }
    for (int64_t k : { 384, 768, 3072 }) {
        check_columns(GGML_TYPE_Q5_1, k, 37, 8);
    }
    check_columns(GGML_TYPE_Q4_1, 512, 16, 8);
    for (bias where : { bias::apart, bias::in_place }) {
        for (int64_t cols : { 1, 2, 5, 16, 37 }) {
            check_product(GGML_TYPE_Q5_1, 96, 39, cols, max_threads, where);
        }
        check_product(GGML_TYPE_Q8_0, 64, 32, 1, max_threads, where);
        check_product(GGML_TYPE_Q8_0, 64, 33, 48, max_threads, where);
    }
    check_f16(240, 75, 40, max_threads);
    check_f16(16, 1, 12, max_threads);
    check_f16(2304, 33, 25, max_threads);
    check_gelu(1, 1, max_threads);
    check_gelu(37, 5, max_threads);
    check_gelu(3072, 4, max_threads);
    check_chain(64, max_threads);
    check_chain(256, max_threads);
    check_attention(64, 3, 3, 100, 150, 1, max_threads);
    check_attention(64, 2, 2, 16, 1, 1, max_threads);
    check_attention(64, 2, 1, 33, 31, 4, max_threads);
    check_attention(32, 5, 5, 47, 512, 8, max_threads);
    check_attention(96, 2, 2, 65, 97, 1, max_threads);
    check_attention(128, 1, 1, 24, 256, 1, max_threads);
    check_attention(64, 12, 12, 1, 600, 2, max_threads);
    check_attention(64, 4, 4, 5, 70, 2, max_threads);
    check_attention(64, 4, 2, 1, 33, 1, max_threads, true);
    check_attention(32, 3, 3, 15, 100, 1, max_threads, true);
    check_attention(128, 2, 2, 20, 64, 1, max_threads, true);
    if (failures) {
        fprintf(stderr, "%d cases failed\n", failures);
    }
    return failures ? 1 : 0;
}
