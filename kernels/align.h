#pragma once

// When each token of a window was spoken, by openai-whisper's method (whisper/timing.py): the text is decoded once
// more, and the cross attention of the model's alignment heads shows at which frames each token looks. A frame is 20
// ms.
//
// For each head whisper.cpp's graph computes a matrix of tokens × frames (hooks/align.patch). Two custom operations
// take it: `standardize` subtracts a frame's mean over the tokens and divides by its deviation; `add_filtered` takes
// the median of seven frames and adds the result to what the other heads gave. So one head's matrix is in memory at a
// time.
//
// What openai-whisper does not have: pauses are taken out (`spans`).

#include "ggml.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace ggml::xeon {

// What all heads say together.
struct attended {
    int frames = 0;            // of the window's audio
    std::vector<float> scores; // tokens × frames
};

// Columns are split among the threads.
inline void standardize(ggml_tensor * dst, const ggml_tensor * src, int ith, int nth, void *) {
    constexpr int64_t BLOCK = 64;
    GGML_ASSERT(dst->data == src->data && dst->type == GGML_TYPE_F32 && ggml_is_contiguous(dst));
    const int64_t frames = dst->ne[0], tokens = dst->ne[1];
    for (int64_t begin = frames * ith / nth, last = frames * (ith + 1) / nth; begin < last; begin += BLOCK) {
        const int64_t n = std::min(BLOCK, last - begin);
        float * column = (float *) dst->data + begin;
        float mean[BLOCK] = {}, scale[BLOCK] = {};
        for (int64_t t = 0; t < tokens; t++) {
            for (int64_t i = 0; i < n; i++) {
                mean[i] += column[t * frames + i] / tokens;
            }
        }
        for (int64_t t = 0; t < tokens; t++) {
            for (int64_t i = 0; i < n; i++) {
                const float difference = column[t * frames + i] - mean[i];
                scale[i] += difference * difference / tokens;
            }
        }
        for (int64_t i = 0; i < n; i++) {
            scale[i] = scale[i] > 0 ? 1 / std::sqrt(scale[i]) : 0; // all tokens alike: they say nothing
        }
        for (int64_t t = 0; t < tokens; t++) {
            for (int64_t i = 0; i < n; i++) {
                column[t * frames + i] = (column[t * frames + i] - mean[i]) * scale[i];
            }
        }
    }
}

// The median of v[0] to v[6]. Without branches, so that compilers compute several at a time.
inline float median_of_7(const float * v) {
    float a = v[0], b = v[1], c = v[2], d = v[3], e = v[4], f = v[5], g = v[6];
    const auto sort = [](float & low, float & high) {
        const float smaller = std::min(low, high);
        high = std::max(low, high);
        low = smaller;
    };
    sort(a, f), sort(a, d), sort(b, g), sort(c, e), sort(a, b), sort(d, f), sort(c, g);
    sort(c, d), sort(d, g), sort(e, f), sort(b, e), sort(b, d), sort(d, e);
    return d;
}

// Rows are split among the threads; `userdata` is the `attended` that they are added to.
inline void add_filtered(ggml_tensor * dst, const ggml_tensor * src, int ith, int nth, void * userdata) {
    constexpr int64_t HALF = 3;
    GGML_ASSERT(dst->data == src->data && dst->type == GGML_TYPE_F32 && ggml_is_contiguous(dst));
    attended & all = *(attended *) userdata;
    const int64_t frames = dst->ne[0], tokens = dst->ne[1];
    GGML_ASSERT(frames == all.frames && (size_t) (frames * tokens) == all.scores.size());
    std::vector<float> padded(frames + 2 * HALF);
    for (int64_t t = tokens * ith / nth; t < tokens * (ith + 1) / nth; t++) {
        const float * row = (const float *) dst->data + t * frames;
        float * sum = all.scores.data() + t * frames;
        if (frames <= HALF) { // too few to reflect
            for (int64_t i = 0; i < frames; i++) {
                sum[i] += row[i];
            }
            continue;
        }
        std::copy(row, row + frames, padded.begin() + HALF);
        for (int64_t i = 1; i <= HALF; i++) {
            padded[HALF - i] = row[i];
            padded[HALF + frames - 1 + i] = row[frames - 1 - i];
        }
        for (int64_t i = 0; i < frames; i++) {
            sum[i] += median_of_7(padded.data() + i);
        }
    }
}

// The first frame of each of `rows` rows on the path through rows × frames scores that collects the most (dynamic time
// warping). It begins in the first row's first frame and ends in the last row's last.
inline std::vector<int> first_frames(const float * scores, int rows, int frames) {
    enum step : uint8_t { BOTH, ROW, FRAME };
    constexpr float NEVER = std::numeric_limits<float>::infinity();
    std::vector<uint8_t> steps((size_t) rows * frames);
    std::vector<float> above(frames + 1, NEVER), costs(frames + 1);
    above[0] = 0;
    for (int i = 0; i < rows; i++) {
        costs[0] = NEVER;
        for (int j = 0; j < frames; j++) {
            const float both = above[j], row = above[j + 1], frame = costs[j];
            // Of equal ones openai-whisper takes the same.
            const step taken = both < row && both < frame ? BOTH : row < both && row < frame ? ROW : FRAME;
            steps[(size_t) i * frames + j] = taken;
            costs[j + 1] = (taken == BOTH ? both : taken == ROW ? row : frame) - scores[(size_t) i * frames + j];
        }
        std::swap(above, costs);
    }
    std::vector<int> first(rows);
    for (int i = rows - 1, j = frames - 1; i >= 0 && j >= 0;) {
        first[i] = j;
        const uint8_t taken = steps[(size_t) i * frames + j];
        i -= taken != FRAME;
        j -= taken != ROW;
    }
    return first;
}

// From when to when a token was spoken, in units of 10 ms.
struct span {
    int begin, end;
};

// The spans of `tokens` tokens, from the scores of one row more (the last is what follows the text) and the loudness of
// the same audio, in dB for every 10 ms.
//
// While nobody speaks, some token must be looking at each frame, and the pause goes to the word before it or to the one
// after it, as it happens. So a token's span is what lies around the frame at which it looks hardest, up to the next
// pause: 100 ms before it, 200 ms after it, that are quiet beside the rest of the span.
inline std::vector<span> spans(const float * scores, int tokens, int frames, const std::vector<float> & loudness) {
    constexpr int PAUSE_BEFORE = 10, PAUSE_AFTER = 20;
    constexpr float QUIET_SHARE = 0.25f,
                    LEAST_CONTRAST = 15; // dB: below it there are no pauses that can be told from speech
    constexpr float NEVER = -std::numeric_limits<float>::infinity();
    const std::vector<int> first = first_frames(scores, tokens + 1, frames);
    std::vector<span> result(tokens);
    std::vector<int> hardest(tokens);
    std::vector<float> quiet(tokens), sorted;
    for (int i = 0; i < tokens; i++) {
        const int begin = first[i], end = first[i + 1];
        result[i] = {2 * begin, 2 * end};
        hardest[i] = 2 * begin;
        quiet[i] = NEVER;
        if (begin == end) {
            continue;
        }
        sorted.assign(loudness.begin() + 2 * begin, loudness.begin() + 2 * end);
        std::nth_element(sorted.begin(), sorted.begin() + sorted.size() / 5, sorted.end());
        const float low = sorted[sorted.size() / 5], high = *std::max_element(sorted.begin(), sorted.end());
        if (high - low >= LEAST_CONTRAST) {
            quiet[i] = low + QUIET_SHARE * (high - low);
        }
        float best = NEVER;
        for (int j = begin; j < end; j++) {
            const float score = scores[(size_t) i * frames + j];
            if (score > best && std::max(loudness[2 * j], loudness[2 * j + 1]) >= quiet[i]) {
                best = score;
                hardest[i] = 2 * j;
            }
        }
        for (int j = hardest[i] - 1, run = 0; j >= 2 * begin; j--) {
            run = loudness[j] < quiet[i] ? run + 1 : 0;
            if (run == PAUSE_BEFORE) {
                result[i].begin = j + PAUSE_BEFORE;
                break;
            }
        }
    }
    for (int i = 0; i < tokens; i++) {
        const int own_end = result[i].end;
        if (i + 1 < tokens) {
            result[i].end = result[i + 1].begin; // with what the next one left, by whose measure that is quiet or not
        }
        for (int j = hardest[i] + 1, run = 0; j < result[i].end; j++) {
            run = loudness[j] < (j < own_end ? quiet[i] : quiet[i + 1]) ? run + 1 : 0;
            if (run == PAUSE_AFTER) {
                result[i].end = j + 1 - PAUSE_AFTER;
                break;
            }
        }
    }
    return result;
}

} // namespace ggml::xeon
