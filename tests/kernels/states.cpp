// Let one state answer requests of many kinds, one after the other, and a new state each of them: both have to say the same.
// Then answer the same requests in four threads whose states decode together: they have to say what each says alone, to the bit.
// Then align words with and without flash attention: they must be nearly where they are without.
//
//   states MODEL SPEECH.wav NOISE.wav
//
// Recordings are 16 kHz mono 16-bit WAV without other chunks. Exit status 1 and lines with FAILED name the requests that differ.

#include "whisper.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

typedef std::vector<float> samples;

static samples read(const char * path) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes{ std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>() };
    samples result;
    for (size_t i = 44; i + 1 < bytes.size(); i += 2) {
        result.push_back((int16_t) ((uint8_t) bytes[i] | (uint8_t) bytes[i + 1] << 8)/32768.0f);
    }
    if (result.empty()) {
        fprintf(stderr, "%s has no samples\n", path);
        exit(2);
    }
    return result;
}

struct request {
    const char * name;
    const samples & pcm;
    std::function<void(whisper_full_params &)> change;
    whisper_sampling_strategy strategy = WHISPER_SAMPLING_GREEDY;
    bool again = false; // a second time without samples: what counts is what that says
    // what the used state alone is asked before that, without samples, and the status of that call
    std::function<void(whisper_full_params &)> between = nullptr;
    int between_status = 0;
    std::vector<int32_t> heads = {}; // pairs of layer and head, by which words are aligned
};

static whisper_full_params parameters(const request & asked, const std::function<void(whisper_full_params &)> & change) {
    whisper_full_params params = whisper_full_default_params(asked.strategy);
    params.n_threads        = 2;
    params.language         = "en";
    params.greedy.best_of   = 1;
    params.print_progress   = false;
    params.print_timestamps = false;
    change(params);
    return params;
}

static std::string answer(whisper_context * ctx, whisper_state * state, bool is_new, const request & asked) {
    const whisper_full_params params = parameters(asked, asked.change);
    if (whisper_xeon_set_alignment_heads(ctx, state, asked.heads.data(), asked.heads.size()/2) != 0) {
        return "no such heads";
    }
    int status = whisper_full_with_state(ctx, state, params, asked.pcm.data(), asked.pcm.size());
    if (asked.between && !is_new) {
        const int between = whisper_full_with_state(ctx, state, parameters(asked, asked.between), nullptr, 0);
        if (between != asked.between_status) {
            return "status " + std::to_string(between) + " in between";
        }
    }
    if (status == 0 && asked.again) {
        status = whisper_full_with_state(ctx, state, params, nullptr, 0);
    }
    std::string said = "status " + std::to_string(status) + ", language " + std::to_string(whisper_full_lang_id_from_state(state));
    char line[128];
    for (int i = 0; i < whisper_full_n_segments_from_state(state); i++) {
        snprintf(line, sizeof(line), "\n  %lld-%lld, no speech %.3f:", (long long) whisper_full_get_segment_t0_from_state(state, i),
                 (long long) whisper_full_get_segment_t1_from_state(state, i), whisper_full_get_segment_no_speech_prob_from_state(state, i));
        said += line;
        said += whisper_full_get_segment_text_from_state(state, i);
        for (int j = 0; j < whisper_full_n_tokens_from_state(state, i); j++) {
            const whisper_token_data token = whisper_full_get_token_data_from_state(state, i, j);
            snprintf(line, sizeof(line), " [%d %a %lld-%lld]", token.id, token.p, (long long) token.t0, (long long) token.t1);
            said += line;
        }
    }
    return said;
}

// What states say to the requests that decode together, four at a time.
static std::vector<std::string> answers_together(whisper_context * ctx, const std::vector<request> & requests) {
    std::vector<std::string> said(requests.size());
    std::atomic<size_t> next{ 0 };
    whisper_xeon_together * together = whisper_xeon_together_init(ctx);
    std::vector<whisper_state *> states;
    for (int i = 0; i < 4; i++) {
        states.push_back(whisper_init_state(ctx));
        whisper_xeon_join(together, states.back());
    }
    std::vector<std::thread> threads;
    for (whisper_state *& state : states) {
        threads.emplace_back([&]() {
            for (size_t i = next++; i < requests.size(); i = next++) {
                said[i] = answer(ctx, state, true, requests[i]);
            }
            whisper_free_state(state); // leaves
        });
    }
    for (std::thread & thread : threads) {
        thread.join();
    }
    whisper_xeon_together_free(together);
    return said;
}

// Where the words of a request are in 10 ms, with flash attention or without.
static std::vector<int64_t> aligned(const char * model, bool flash_attn, const request & asked) {
    whisper_context_params context = whisper_context_default_params();
    context.flash_attn = flash_attn;
    whisper_context * ctx = whisper_init_from_file_with_params_no_state(model, context);
    whisper_state * state = whisper_init_state(ctx);
    printf("%s\n", answer(ctx, state, true, asked).c_str());
    std::vector<int64_t> times;
    for (int i = 0; i < whisper_full_n_segments_from_state(state); i++) {
        for (int j = 0; j < whisper_full_n_tokens_from_state(state, i); j++) {
            const whisper_token_data token = whisper_full_get_token_data_from_state(state, i, j);
            if (token.id < whisper_token_eot(ctx)) {
                times.insert(times.end(), { token.t0, token.t1 });
            }
        }
    }
    whisper_free_state(state);
    whisper_free(ctx);
    return times;
}

static bool are_close(const std::vector<int64_t> & a, const std::vector<int64_t> & b) {
    bool close = a.size() == b.size() && !a.empty();
    for (size_t i = 0; close && i < a.size(); i++) {
        close = std::abs(a[i] - b[i]) <= 10;
    }
    return close;
}

int main(int argc, char ** argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: states MODEL SPEECH.wav NOISE.wav\n");
        return 2;
    }
    const samples speech = read(argv[2]), noise = read(argv[3]);
    samples windows = speech; // the second one has the first one's text before it
    windows.resize(31*WHISPER_SAMPLE_RATE);
    windows.insert(windows.end(), speech.begin(), speech.end());
    windows.resize(40*WHISPER_SAMPLE_RATE); // with 5 s or less left, it would not
    const samples little(speech.begin(), speech.begin() + WHISPER_SAMPLE_RATE/5);

    const auto words = [](whisper_full_params & p) { p.token_timestamps = true; p.max_len = 1; p.split_on_word = true; };
    const std::vector<int32_t> heads = { 1, 0, 2, 1, 1, 1 };
    const auto sampled = [](whisper_full_params & p) { p.temperature = 0.9f; p.greedy.best_of = 3; };
    const auto plain = [](whisper_full_params &) {};
    const auto prompted = [](whisper_full_params & p) { p.initial_prompt = "zulu alpha"; p.audio_ctx = 500; };
    const auto too_large = [](whisper_full_params & p) { p.audio_ctx = 100000; };
    const auto too_short = [](whisper_full_params & p) { p.audio_ctx = 500; p.duration_ms = 50; };
    const std::vector<request> requests = {
        { "the language detected", speech, [](whisper_full_params & p) { p.language = "auto"; } },
        { "sampled", speech, sampled },
        { "a short context", speech, [](whisper_full_params & p) { p.audio_ctx = 500; } },
        { "a shorter one, the language detected", noise, [](whisper_full_params & p) { p.audio_ctx = 300; p.language = "auto"; } },
        { "words", speech, words },
        { "words again, without samples", speech, words, WHISPER_SAMPLING_GREEDY, true },
        { "again after a context that is too large", speech, plain, WHISPER_SAMPLING_GREEDY, true, too_large, -5 },
        { "again after too little with a short context", speech, plain, WHISPER_SAMPLING_GREEDY, true, too_short },
        { "noise", noise, plain },
        { "two windows", windows, plain },
        { "beams", speech, [](whisper_full_params & p) { p.beam_search.beam_size = 5; }, WHISPER_SAMPLING_BEAM_SEARCH },
        { "after text, without times", speech, [](whisper_full_params & p) { p.initial_prompt = "zulu alpha"; p.no_timestamps = true; } },
        { "the language alone", noise, [](whisper_full_params & p) { p.detect_language = true; } },
        { "little", little, [](whisper_full_params & p) { p.language = "auto"; } },
        { "words aligned", speech, plain, WHISPER_SAMPLING_GREEDY, false, nullptr, 0, heads },
        { "words aligned again, without samples", windows, plain, WHISPER_SAMPLING_GREEDY, true, nullptr, 0, heads },
        { "words aligned after text, with a short context", speech, prompted, WHISPER_SAMPLING_GREEDY, false, nullptr, 0, heads },
        { "sampled again", speech, sampled },
    };

    whisper_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    whisper_context * ctx = whisper_init_from_file_with_params_no_state(argv[1], whisper_context_default_params());
    whisper_state * used = ctx ? whisper_init_state(ctx) : nullptr;
    if (!used) {
        fprintf(stderr, "%s could not be loaded\n", argv[1]);
        return 2;
    }
    int failures = 0;
    const std::vector<std::string> together = answers_together(ctx, requests);
    for (const request & asked : requests) {
        whisper_state * fresh = whisper_init_state(ctx);
        const std::string expected = answer(ctx, fresh, true, asked), said = answer(ctx, used, false, asked);
        whisper_free_state(fresh);
        printf("%s: %s\n%s\n", asked.name, said == expected ? "ok" : "FAILED: a used state differs from a new one", said.c_str());
        if (said != expected) {
            printf("expected %s\n", expected.c_str());
            failures++;
        }
        const std::string & other = together[&asked - requests.data()];
        printf("%s, together: %s\n", asked.name, other == expected ? "ok" : "FAILED");
        if (other != expected) {
            printf("%s\nexpected %s\n", other.c_str(), expected.c_str());
            failures++;
        }
    }
    const std::vector<int32_t> missing = { 0, 1000 };
    const bool rejected = whisper_xeon_set_alignment_heads(ctx, used, missing.data(), 1) == -1;
    printf("heads that are not there: %s\n", rejected ? "ok, rejected" : "FAILED");
    failures += !rejected;
    whisper_free_state(used);
    whisper_free(ctx);
    for (const samples & pcm : { speech, windows }) {
        const request asked = { "words", pcm, plain, WHISPER_SAMPLING_GREEDY, false, nullptr, 0, heads };
        const bool close = are_close(aligned(argv[1], true, asked), aligned(argv[1], false, asked));
        printf("words with and without flash attention: %s\n", close ? "ok, close" : "FAILED");
        failures += !close;
    }
    return failures ? 1 : 0;
}
