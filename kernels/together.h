#pragma once

// Windows of several states that are decoded together. whisper_full stays as it is: each window runs in a thread with a
// state of its own, and where it would decode, it waits until all others of its kind do so as well (`meet`). One of
// them then computes one graph (hooks/together.patch) in which the weights are read once for the tokens of all; only
// attention knows whose keys and values are whose (attention-windows.h). So a window joins when its encoder is done and
// leaves with its thread. A column has the bits that it has alone, whoever else is there.
//
// What is computed alone, such as the encoder, is computed by one at a time, in buffers that all share.
//
// For whisper.cpp, which includes this where its structures are known.

#include "attention-windows.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>

static struct ggml_cgraph * whisper_build_graph_decoder(
    whisper_context & wctx,
    whisper_state & wstate,
    const whisper_batch & batch,
    bool save_alignment_heads_QKs,
    bool worst_case,
    struct whisper_xeon_step * step
);

// Columns of a graph: so many are multiplied straight from the blocks (gemv.cpp), each with the bits that it has alone.
static constexpr int WHISPER_XEON_COLUMNS = 12;

// What one window wants decoded.
struct whisper_xeon_part {
    whisper_state & state;
    const whisper_batch & batch;
    std::vector<ggml_fp16_t> mask; // of self attention, tokens × keys
    bool ok = false;
    bool done = false;
    std::condition_variable changed; // done, or nobody is left to wait for
};

// The parts of one graph, and what its attentions are told about them.
struct whisper_xeon_step {
    whisper_context & ctx;
    whisper_sched sched;
    std::vector<whisper_xeon_part *> parts;
    std::deque<std::vector<ggml_xeon_window>> windows;
    std::deque<ggml_xeon_windows> operations;
    std::vector<uint8_t> scratch;

    void begin(std::vector<whisper_xeon_part *> these, int n_threads) {
        const auto & hparams = ctx.model.hparams;
        parts = std::move(these);
        windows.clear();
        operations.clear();
        const int64_t keys = GGML_PAD(std::max(hparams.n_audio_ctx, hparams.n_text_ctx), 256);
        const int64_t d = hparams.n_text_state / hparams.n_text_head;
        scratch.resize(64 + n_threads * ggml_xeon_windows_size(hparams.n_text_head, d, keys));
    }

    // Attention of a layer; without k and v to what the encoder said.
    ggml_tensor * attend(ggml_context * ctx0, int il, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, float scale) {
        const auto & hparams = ctx.model.hparams;
        const int64_t n_state = hparams.n_text_state;
        auto & those = windows.emplace_back();
        int64_t first = 0;
        for (whisper_xeon_part * part : parts) {
            const whisper_state & state = part->state;
            const auto & cache = k ? state.kv_self : state.kv_cross;
            const int n_audio_ctx = state.exp_n_audio_ctx > 0 ? state.exp_n_audio_ctx : hparams.n_audio_ctx;
            const int64_t rows = k ? (int64_t) cache.size : GGML_PAD(n_audio_ctx, 256); // of a layer
            those.push_back({
                first,
                part->batch.n_tokens,
                (ggml_fp16_t *) cache.k->data + il * rows * n_state,
                (ggml_fp16_t *) cache.v->data + il * rows * n_state,
                k ? (int64_t) cache.n : rows,
                k ? part->mask.data() : nullptr,
                k != nullptr,
                (int64_t) cache.head,
            });
            first += part->batch.n_tokens;
        }
        const int64_t d = n_state / hparams.n_text_head;
        const int64_t keys = GGML_PAD(std::max(hparams.n_audio_ctx, hparams.n_text_ctx), 256);
        operations.push_back({
            those.data(),
            (int) those.size(),
            hparams.n_text_head,
            scale,
            (void *) GGML_PAD((uintptr_t) scratch.data(), 64),
            ggml_xeon_windows_size(hparams.n_text_head, d, keys),
        });
        ggml_tensor * sources[] = {q, k, v};
        return ggml_custom_4d(
            ctx0,
            GGML_TYPE_F32,
            n_state,
            q->ne[1],
            1,
            1,
            sources,
            k ? 3 : 1,
            ggml_xeon_attend_windows,
            GGML_N_TASKS_MAX,
            &operations.back()
        );
    }
};

// What a state needs only while it computes alone: of Whisper small some 90 MB.
struct whisper_xeon_buffers {
    whisper_kv_cache kv_pad = {};
    whisper_sched conv;
    whisper_sched encode;
    whisper_sched cross;
    whisper_sched decode;

    void swap(whisper_state & state) {
        std::swap(kv_pad, state.kv_pad);
        std::swap(conv, state.sched_conv);
        std::swap(encode, state.sched_encode);
        std::swap(cross, state.sched_cross);
        std::swap(decode, state.sched_decode);
    }

    void free() {
        whisper_kv_cache_free(kv_pad);
        for (whisper_sched * sched : {&conv, &encode, &cross, &decode}) {
            ggml_backend_sched_free(sched->sched);
        }
    }
};

struct whisper_xeon_together {
    whisper_xeon_together(whisper_context & ctx) : ctx(ctx), backends(whisper_backend_init(ctx.params)), step{ctx} {}

    ~whisper_xeon_together() {
        buffers.free();
        ggml_backend_sched_free(step.sched.sched);
        for (ggml_backend_t backend : backends) {
            ggml_backend_free(backend);
        }
    }

    // Decode the batch with those of all others. Returns false if that failed.
    bool meet(whisper_state & state, const whisper_batch & batch, int n_threads) {
        whisper_xeon_part part = {state, batch, {}};
        std::unique_lock<std::mutex> lock(mutex);
        waiting.push_back(&part);
        while (!part.done) {
            if ((int) waiting.size() < n_members) {
                // Not wait(), which GCC 12 takes from a libstdc++ newer than the packages are promised to need.
                part.changed.wait_for(lock, std::chrono::hours(1));
                continue;
            }
            std::vector<whisper_xeon_part *> all;
            all.swap(waiting);
            decode_all(all, n_threads);
            for (whisper_xeon_part * each : all) {
                each->done = true;
                each->changed.notify_one();
            }
        }
        return part.ok;
    }

    void join(whisper_state & state) {
        whisper_xeon_buffers own;
        own.swap(state);
        own.free();
        state.together = this;
        const std::lock_guard<std::mutex> lock(mutex);
        n_members++;
    }

    void leave(whisper_state & state) {
        state.together = nullptr;
        const std::lock_guard<std::mutex> lock(mutex);
        n_members--;
        if (!waiting.empty()) {
            waiting.front()->changed.notify_one();
        }
    }

    whisper_context & ctx;
    std::vector<ggml_backend_t> backends;

    std::mutex turn; // of those that compute alone, for whom this is
    whisper_xeon_buffers buffers;
    int n_audio_ctx = 0; // of whom the padding of its keys and values is

private:
    // As many at a time as a graph has columns.
    void decode_all(const std::vector<whisper_xeon_part *> & all, int n_threads) {
        for (size_t i = 0; i < all.size();) {
            std::vector<whisper_xeon_part *> parts;
            int n_tokens = 0;
            for (; i < all.size() && n_tokens + all[i]->batch.n_tokens <= WHISPER_XEON_COLUMNS; i++) {
                n_tokens += all[i]->batch.n_tokens;
                parts.push_back(all[i]);
            }
            const bool ok = compute(parts, n_tokens, n_threads);
            for (whisper_xeon_part * part : parts) {
                part->ok = ok;
            }
        }
    }

    bool compute(const std::vector<whisper_xeon_part *> & parts, int n_tokens, int n_threads) {
        whisper_state & any = parts[0]->state;
        whisper_batch batch = {};
        if (!step.sched.sched) {
            step.begin({}, n_threads);
            batch.n_tokens = WHISPER_XEON_COLUMNS;
            if (!whisper_sched_graph_init(step.sched, backends, [&]() {
                    return whisper_build_graph_decoder(ctx, any, batch, false, true, &step);
                })) {
                return false;
            }
        }

        std::vector<int32_t> tokens, positions;
        for (whisper_xeon_part * part : parts) {
            tokens.insert(tokens.end(), part->batch.token, part->batch.token + part->batch.n_tokens);
            positions.insert(positions.end(), part->batch.pos, part->batch.pos + part->batch.n_tokens);
            see(*part);
        }
        step.begin(parts, n_threads);
        batch.n_tokens = n_tokens;
        ggml_cgraph * gf = whisper_build_graph_decoder(ctx, any, batch, false, false, &step);
        if (!ggml_backend_sched_alloc_graph(step.sched.sched, gf)) {
            return false;
        }
        ggml_backend_tensor_set(ggml_graph_get_tensor(gf, "embd"), tokens.data(), 0, n_tokens * sizeof(int32_t));
        ggml_backend_tensor_set(ggml_graph_get_tensor(gf, "position"), positions.data(), 0, n_tokens * sizeof(int32_t));
        ggml_tensor * logits = ggml_graph_node(gf, -1);
        if (!ggml_graph_compute_helper(step.sched.sched, gf, n_threads)) {
            return false;
        }

        const size_t n_vocab = ctx.model.hparams.n_vocab;
        size_t column = 0;
        for (whisper_xeon_part * part : parts) {
            auto & out = part->state.logits;
            out.resize(part->batch.n_tokens * n_vocab);
            for (int i = 0; i < part->batch.n_tokens; i++, column++) {
                if (part->batch.logits[i]) {
                    ggml_backend_tensor_get(
                        logits, out.data() + i * n_vocab, column * n_vocab * sizeof(float), n_vocab * sizeof(float)
                    );
                }
            }
        }
        return true;
    }

    // Which keys each token of a part sees.
    static void see(whisper_xeon_part & part) {
        const auto & cache = part.state.kv_self;
        part.mask.assign((size_t) part.batch.n_tokens * cache.n, ggml_fp32_to_fp16(-INFINITY));
        for (int j = 0; j < part.batch.n_tokens; j++) {
            for (uint32_t i = 0; i < cache.n; i++) {
                if (cache.cells[i].has_seq_id(part.batch.seq_id[j][0]) && cache.cells[i].pos <= part.batch.pos[j]) {
                    part.mask[(size_t) j * cache.n + i] = 0;
                }
            }
        }
    }

    std::mutex mutex; // of what follows, and held while a graph is computed
    int n_members = 0;
    std::vector<whisper_xeon_part *> waiting;
    whisper_xeon_step step;
};

// While a state that has joined computes alone, it has the buffers that all share, and otherwise none. Those that it
// had are made again when it computes after it has left.
class whisper_xeon_turn {
public:
    whisper_xeon_turn(whisper_context & ctx, whisper_state & state) : state(state), together(state.together) {
        if (together) {
            together->turn.lock();
            together->buffers.swap(state);
        }
        if (!state.sched_conv.sched) {
            reserve(ctx); // what fails is tried again, and reported, where it is needed
        }
        if (together && together->n_audio_ctx != state.exp_n_audio_ctx) {
            together->n_audio_ctx = state.exp_n_audio_ctx;
            ggml_backend_buffer_clear(state.kv_pad.buffer, 0); // as in whisper_full, of what another window left
        }
    }

    ~whisper_xeon_turn() {
        if (together) {
            together->buffers.swap(state);
            together->turn.unlock();
        }
    }

    whisper_xeon_turn(const whisper_xeon_turn &) = delete;
    whisper_xeon_turn & operator=(const whisper_xeon_turn &) = delete;

private:
    // As whisper_init_state does.
    void reserve(whisper_context & ctx) {
        const auto & backends = together ? together->backends : state.backends;
        const auto & hparams = ctx.model.hparams;
        const int rows = GGML_PAD(hparams.n_audio_ctx, 256);
        whisper_kv_cache_init(state.kv_pad, backends[0], ctx.itype, hparams.n_audio_state, 1, rows);
        const auto init = [&](whisper_sched & sched, std::function<ggml_cgraph *()> && build) {
            whisper_sched_graph_init(sched, backends, std::move(build));
        };
        whisper_batch batch = {};
        batch.n_tokens = hparams.n_text_ctx;
        init(state.sched_conv, [&]() { return whisper_build_graph_conv(ctx, state); });
        init(state.sched_encode, [&]() { return whisper_build_graph_encoder(ctx, state); });
        init(state.sched_cross, [&]() { return whisper_build_graph_cross(ctx, state); });
        init(state.sched_decode, [&]() {
            return whisper_build_graph_decoder(ctx, state, batch, false, true, nullptr);
        });
    }

    whisper_state & state;
    whisper_xeon_together * together;
};
