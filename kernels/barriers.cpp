// A decoder with one token has norms, additions, multiplications and a GELU of one row, which thread 0 computes while
// the others wait at a barrier after each. Between two such nodes nobody has to wait: of some 400 barriers a token of
// Whisper small 150 go.

#include "ggml-impl.h"
#include "xeon.h"

namespace {

// Whether thread 0 alone computes the node: its work is split by rows and there is one.
bool is_one_row(const ggml_tensor * node) {
    switch (node->op) {
        case GGML_OP_ADD:
        case GGML_OP_MUL:
            if (node->src[1]->type != GGML_TYPE_F32) {
                return false;
            }
            break;
        case GGML_OP_NORM:
        case GGML_OP_SCALE: break;
        case GGML_OP_UNARY:
            if (ggml_get_unary_op(node) != GGML_UNARY_OP_GELU) {
                return false;
            }
            break;
        default: return false;
    }
    return node->type == GGML_TYPE_F32 && node->src[0]->type == GGML_TYPE_F32 && ggml_nrows(node) == 1 &&
           ggml_nrows(node->src[0]) == 1;
}

} // namespace

// With an abort callback everybody waits, so that all threads see the same nodes.
bool ggml_xeon_skips_barrier(const ggml_cgraph * graph, int n, const ggml_cplan * plan) {
    if (!GGML_XEON_BARRIERS || plan->abort_callback || !is_one_row(graph->nodes[n])) {
        return false;
    }
    for (int i = n + 1; i < graph->n_nodes; i++) {
        const ggml_tensor * next = graph->nodes[i];
        if (!ggml_op_is_empty(next->op) && (next->flags & GGML_TENSOR_FLAG_COMPUTE)) {
            return is_one_row(next);
        }
    }
    return false;
}
