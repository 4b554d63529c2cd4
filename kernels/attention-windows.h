#pragma once

// Attention of several windows, each with keys and values of its own, as one custom operation of ggml: whisper.cpp's
// graph of windows that are decoded together (together.h) has one for each layer's self attention and one for its cross
// attention. A query's result has the bits that GGML_OP_FLASH_ATTN_EXT gives it.

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

// The queries of one window, columns first..first+n-1 of the operation's first source.
struct ggml_xeon_window {
    int64_t first;
    int64_t n;
    ggml_fp16_t * k; // keys × elements of all heads
    ggml_fp16_t * v;
    int64_t keys;
    const ggml_fp16_t * mask; // n × keys, or NULL
    bool stores;              // the queries' own keys and values, the second and third source, to rows from slot on
    int64_t slot;
};

struct ggml_xeon_windows {
    const struct ggml_xeon_window * windows;
    int n;
    int64_t heads;
    float scale;
    void * scratch; // thread_size bytes of each thread, aligned to 64
    size_t thread_size;
};

// Bytes of scratch of a thread, for windows with at most that many keys.
size_t ggml_xeon_windows_size(int64_t heads, int64_t d, int64_t keys);

// For ggml_custom_4d; userdata is a ggml_xeon_windows.
void ggml_xeon_attend_windows(struct ggml_tensor * dst, int ith, int nth, void * userdata);

#ifdef __cplusplus
}
#endif
