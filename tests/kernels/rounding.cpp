// Round a model's matrices to a type as whisper-quantize did and as ggml does by itself, and compare what each leaves of them.
//
//   rounding F16_MODEL QUANTIZED_MODEL
//
// For each matrix a line: name, whether the file has exactly the bytes that kernels/importance.h leads to, and the ratio of the two
// errors, each weighted with the importance of its input. Exit status 1 if a file does not have those bytes.

#include "ggml-backend.h"
#include "ggml.h"
#include "importance.h"

#include <cstdio>
#include <cstring>
#include <fstream>
#include <vector>

struct tensor {
    std::string name;
    int64_t inputs, rows;
    ggml_type type;
    int dimensions;
    std::vector<char> bytes;
};

static bool next(std::ifstream & file, tensor & read) {
    int32_t head[3], extents[4] = { 1, 1, 1, 1 };
    if (!file.read((char *) head, sizeof(head))) {
        return false;
    }
    file.read((char *) extents, head[0]*sizeof(int32_t));
    read.name.resize(head[1]);
    file.read(&read.name[0], head[1]);
    read.dimensions = head[0];
    read.inputs = extents[0];
    read.rows = (int64_t) extents[1]*extents[2];
    read.type = (ggml_type) head[2];
    read.bytes.resize(read.rows*ggml_row_size(read.type, read.inputs));
    file.read(read.bytes.data(), read.bytes.size());
    return true;
}

static void skip_to_tensors(std::ifstream & file) {
    int32_t header[12], filters[2], tokens, length;
    file.read((char *) header, sizeof(header));
    file.read((char *) filters, sizeof(filters));
    file.seekg(filters[0]*filters[1]*sizeof(float), std::ios::cur);
    file.read((char *) &tokens, sizeof(tokens));
    for (int i = 0; i < tokens; i++) {
        file.read((char *) &length, sizeof(length));
        file.seekg(length, std::ios::cur);
    }
}

static double error(const std::vector<float> & exact, const std::vector<char> & rounded, ggml_type type, const std::vector<float> & importance) {
    std::vector<float> values(exact.size());
    ggml_get_type_traits(type)->to_float(rounded.data(), values.data(), values.size());
    double sum = 0;
    for (size_t i = 0; i < exact.size(); i++) {
        sum += importance[i % importance.size()]*(double) (exact[i] - values[i])*(exact[i] - values[i]);
    }
    return sum;
}

int main(int, char ** argv) {
    ggml_free(ggml_init({ 0, nullptr, false })); // the tables of f16
    std::ifstream source(argv[1], std::ios::binary), quantized(argv[2], std::ios::binary);
    skip_to_tensors(source);
    skip_to_tensors(quantized);
    ggml::xeon::importance importance(source);
    bool same = true;
    tensor exact, found;
    while (next(source, exact) && next(quantized, found)) {
        if (!ggml_is_quantized(found.type)) {
            continue;
        }
        std::vector<float> values(exact.inputs*exact.rows);
        ggml_fp16_to_fp32_row((const ggml_fp16_t *) exact.bytes.data(), values.data(), values.size());
        const std::vector<float> weights = importance.of(exact.name, exact.inputs);
        std::vector<char> weighted(found.bytes.size()), plain(found.bytes.size());
        ggml_quantize_chunk(found.type, values.data(), weighted.data(), 0, exact.rows, exact.inputs, weights.data());
        ggml_quantize_chunk(found.type, values.data(), plain.data(), 0, exact.rows, exact.inputs, nullptr);
        const bool as_expected = weighted == found.bytes;
        same = same && as_expected;
        const double before = error(values, plain, found.type, weights), after = error(values, weighted, found.type, weights);
        // The fixtures have matrices of zeros.
        printf("%s %s %.3f\n", exact.name.c_str(), as_expected ? "same" : "FAILED", before > 0 ? after/before : 1);
    }
    return same ? 0 : 1;
}
