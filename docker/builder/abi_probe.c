// Prints the memory layout of the structures of whisper.h that a ctypes caller fills or reads, as JSON:
//   {"<structure>": {"size": bytes, "fields": {"<field>": {"offset": bytes, "size": bytes}}}}
// Fields of nested structures carry their path ("greedy.best_of"). The adapter builds its structures from this, because
// the layout changed under the same SONAME before. tests/integration/test_build_package.py compares the lists with whisper.h.
#include <stddef.h>
#include <stdio.h>

#include "whisper.h"

#define CONTEXT_PARAMS(F) \
    F(use_gpu) F(flash_attn) F(gpu_device) F(dtw_token_timestamps) F(dtw_aheads_preset) F(dtw_n_top) \
    F(dtw_aheads.n_heads) F(dtw_aheads.heads) F(dtw_mem_size)

#define TOKEN_DATA(F) F(id) F(tid) F(p) F(plog) F(pt) F(ptsum) F(t0) F(t1) F(t_dtw) F(vlen)

#define VAD_PARAMS(F) \
    F(threshold) F(min_speech_duration_ms) F(min_silence_duration_ms) F(max_speech_duration_s) F(speech_pad_ms) \
    F(samples_overlap)

#define VAD_CONTEXT_PARAMS(F) F(n_threads) F(use_gpu) F(gpu_device)

#define FULL_PARAMS(F) \
    F(strategy) F(n_threads) F(n_max_text_ctx) F(offset_ms) F(duration_ms) F(translate) F(no_context) \
    F(no_timestamps) F(single_segment) F(print_special) F(print_progress) F(print_realtime) F(print_timestamps) \
    F(token_timestamps) F(thold_pt) F(thold_ptsum) F(max_len) F(split_on_word) F(max_tokens) F(debug_mode) \
    F(audio_ctx) F(tdrz_enable) F(suppress_regex) F(initial_prompt) F(carry_initial_prompt) F(prompt_tokens) \
    F(prompt_n_tokens) F(language) F(detect_language) F(suppress_blank) F(suppress_nst) F(temperature) \
    F(max_initial_ts) F(length_penalty) F(temperature_inc) F(entropy_thold) F(logprob_thold) F(no_speech_thold) \
    F(greedy.best_of) F(beam_search.beam_size) F(beam_search.patience) F(new_segment_callback) \
    F(new_segment_callback_user_data) F(progress_callback) F(progress_callback_user_data) F(encoder_begin_callback) \
    F(encoder_begin_callback_user_data) F(abort_callback) F(abort_callback_user_data) F(logits_filter_callback) \
    F(logits_filter_callback_user_data) F(grammar_rules) F(n_grammar_rules) F(i_start_rule) F(grammar_penalty) F(vad) \
    F(vad_model_path) F(vad_params.threshold) F(vad_params.min_speech_duration_ms) \
    F(vad_params.min_silence_duration_ms) F(vad_params.max_speech_duration_s) F(vad_params.speech_pad_ms) \
    F(vad_params.samples_overlap)

#define FIELD(name) \
    printf("%s\"%s\": {\"offset\": %zu, \"size\": %zu}", separator, #name, offsetof(STRUCTURE, name), \
           sizeof(((STRUCTURE *) 0)->name)); \
    separator = ", ";

int main(void) {
    const char * separator;

#define STRUCTURE struct whisper_full_params
    printf("{\"whisper_full_params\": {\"size\": %zu, \"fields\": {", sizeof(STRUCTURE));
    separator = "";
    FULL_PARAMS(FIELD)
#undef STRUCTURE

#define STRUCTURE struct whisper_context_params
    printf("}},\n\"whisper_context_params\": {\"size\": %zu, \"fields\": {", sizeof(STRUCTURE));
    separator = "";
    CONTEXT_PARAMS(FIELD)
#undef STRUCTURE

#define STRUCTURE struct whisper_token_data
    printf("}},\n\"whisper_token_data\": {\"size\": %zu, \"fields\": {", sizeof(STRUCTURE));
    separator = "";
    TOKEN_DATA(FIELD)
#undef STRUCTURE

#define STRUCTURE struct whisper_vad_params
    printf("}},\n\"whisper_vad_params\": {\"size\": %zu, \"fields\": {", sizeof(STRUCTURE));
    separator = "";
    VAD_PARAMS(FIELD)
#undef STRUCTURE

#define STRUCTURE struct whisper_vad_context_params
    printf("}},\n\"whisper_vad_context_params\": {\"size\": %zu, \"fields\": {", sizeof(STRUCTURE));
    separator = "";
    VAD_CONTEXT_PARAMS(FIELD)
#undef STRUCTURE

    printf("}}}\n");
    return 0;
}
