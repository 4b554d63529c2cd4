#pragma once

// How much each input of a matrix counts when its weights are rounded. An error of a weight reaches the result
// multiplied by its input, so what counts is the input's mean square. It is told from the weights alone, without a
// recording: so the same model always gives the same file, and a fine-tune needs nothing else.
//
// What a layer normalization feeds has about unit variance before its own scale and shift: gamma² + beta². What comes
// out of GELU is integrated over a normal distribution with the mean and deviation that the product before it gives;
// its root is taken, since that estimate is a coarse one. Of other inputs nothing is known: all count alike, which
// still has ggml search for the best scale of a block instead of taking its extremes.

#include "ggml.h"

#include <cmath>
#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace ggml::xeon {

class importance {
public:
    // Remembers where the tensors of a Whisper model are; `model` stands at the first one, and does so again after it.
    explicit importance(std::ifstream & model) : model(model) {
        const auto first = model.tellg();
        int32_t head[3]; // dimensions, length of the name, type
        while (model.read((char *) head, sizeof(head)) && (head[2] == GGML_TYPE_F32 || head[2] == GGML_TYPE_F16)) {
            int64_t count = 1;
            for (int i = 0; i < head[0]; i++) {
                int32_t extent;
                model.read((char *) &extent, sizeof(extent));
                count *= extent;
            }
            std::string name(head[1], 0);
            model.read(&name[0], head[1]);
            tensors[name] = {model.tellg(), count, (ggml_type) head[2]};
            model.seekg(count * (int64_t) ggml_type_size((ggml_type) head[2]), std::ios::cur);
        }
        model.clear();
        model.seekg(first);
    }

    // One number for each input of the matrix `name`.
    std::vector<float> of(const std::string & name, int inputs) {
        const auto here = model.tellg();
        const auto last = name.rfind('.', name.rfind('.') - 1); // of encoder.blocks.0.attn.query.weight: behind attn
        const std::string block = name.substr(0, last), part = name.substr(last + 1);
        std::vector<float> result;
        if (name == "decoder.token_embedding.weight") {
            result = normalized("decoder.ln");
        } else if (part == "0.weight" || part == "query.weight") {
            result = normalized(block + "_ln");
        } else if (part == "key.weight" || part == "value.weight") {
            const bool cross = block.size() > 10 && block.compare(block.size() - 10, 10, "cross_attn") == 0;
            result = normalized(cross ? "encoder.ln_post" : block + "_ln");
        } else if (part == "2.weight") {
            result = activated(block);
        }
        model.seekg(here);
        if ((int) result.size() != inputs) {
            result.assign(inputs, 1);
        }
        return result;
    }

private:
    struct place {
        std::streampos offset;
        int64_t count;
        ggml_type type;
    };

    std::ifstream & model;
    std::map<std::string, place> tensors;

    std::vector<float> read(const std::string & name) {
        const auto found = tensors.find(name);
        if (found == tensors.end()) {
            return {};
        }
        const place & tensor = found->second;
        std::vector<float> values(tensor.count);
        model.seekg(tensor.offset);
        if (tensor.type == GGML_TYPE_F32) {
            model.read((char *) values.data(), tensor.count * sizeof(float));
        } else {
            std::vector<ggml_fp16_t> halves(tensor.count);
            model.read((char *) halves.data(), tensor.count * sizeof(ggml_fp16_t));
            ggml_fp16_to_fp32_row(halves.data(), values.data(), tensor.count);
        }
        return values;
    }

    // Mean squares of what the layer normalization `norm` gives.
    std::vector<float> normalized(const std::string & norm) {
        const auto gamma = read(norm + ".weight"), beta = read(norm + ".bias");
        std::vector<float> squares;
        for (size_t i = 0; i < gamma.size() && i < beta.size(); i++) {
            squares.push_back(gamma[i] * gamma[i] + beta[i] * beta[i]);
        }
        return squares;
    }

    // Roots of the mean squares of what GELU gives in a perceptron.
    std::vector<float> activated(const std::string & perceptron) {
        const auto gamma = read(perceptron + "_ln.weight"), beta = read(perceptron + "_ln.bias");
        const auto weights = read(perceptron + ".0.weight"), bias = read(perceptron + ".0.bias");
        if (gamma.empty() || beta.size() != gamma.size() || weights.size() != gamma.size() * bias.size()) {
            return {};
        }
        std::vector<float> roots;
        for (size_t output = 0; output < bias.size(); output++) {
            const float * row = weights.data() + output * gamma.size();
            double mean = bias[output], variance = 0;
            for (size_t i = 0; i < gamma.size(); i++) {
                mean += (double) row[i] * beta[i];
                variance += (double) row[i] * row[i] * gamma[i] * gamma[i];
            }
            roots.push_back(std::sqrt(gelu_square(mean, std::sqrt(variance))));
        }
        return roots;
    }

    // Mean of GELU(x)² for x of a normal distribution: a sum over 6 deviations to either side.
    static double gelu_square(double mean, double deviation) {
        constexpr int STEPS = 24;
        double sum = 0, total = 0;
        for (int step = -STEPS; step <= STEPS; step++) {
            const double t = 6.0 * step / STEPS, x = mean + deviation * t, density = std::exp(-t * t / 2);
            const double gelu = x * std::erfc(-x / std::sqrt(2.0)) / 2;
            sum += density * gelu * gelu;
            total += density;
        }
        return sum / total;
    }
};

} // namespace ggml::xeon
