/* The operator that adapters make of the kernel, whatever engine calls them.
 *
 * Inputs: queries (B, N, heads, dim), keys and values (B, M, heads, dim), and, where there is one, a
 * bias of scores in float32 that broadcasts to (B, heads, N, M). Output: (B, N, heads, dim), in the
 * type of the queries. In bfloat16, products are rounded to that; in float32 they are exact. */
#ifndef FDD_ATTENTION_OPERATOR_H
#define FDD_ATTENTION_OPERATOR_H

#include <cmath>
#include <cstdint>
#include <vector>

#include "attention.h"

namespace fdd {

typedef std::vector<int64_t> Sizes;

struct Tensor {
  Sizes sizes;
  const void* data;
};

struct Inputs {
  Tensor query, key, value, bias;  // sizes of no bias are empty
};

struct Options {
  float scale = 1;
  bool is_causal = false;
};

// Why the sizes of inputs do not fit together; null if they do.
inline const char* find_problem(const Inputs& in, const Options& options) {
  const Sizes &q = in.query.sizes, &k = in.key.sizes, &v = in.value.sizes, &bias = in.bias.sizes;
  if (q.size() != 4 || k.size() != 4 || v.size() != 4)
    return "queries, keys and values must have 4 axes";
  if (q[0] != k[0] || q[0] != v[0]) return "queries, keys and values differ in batch";
  if (q[2] != k[2] || q[2] != v[2]) return "queries, keys and values differ in heads";
  if (k[1] != v[1]) return "keys and values differ in tokens";
  if (q[3] != k[3]) return "queries and keys differ in size";
  if (bias.empty()) return nullptr;
  if (options.is_causal) return "causal attention takes no bias";
  if (bias.size() != 4) return "the bias must have 4 axes";
  const int64_t wanted[] = {q[0], q[2], q[1], k[1]};
  for (int axis = 0; axis < 4; ++axis)
    if (bias[axis] != 1 && bias[axis] != wanted[axis])
      return "the bias does not broadcast to (batch, heads, queries, keys)";
  return nullptr;
}

inline Sizes find_output(const Inputs& in) {
  const Sizes &q = in.query.sizes, &v = in.value.sizes;
  return {q[0], q[1], q[2], v[3]};
}

// Tokens before heads.
inline void lay_out(int64_t (&strides)[3], const Sizes& sizes) {
  strides[0] = sizes[1] * sizes[2] * sizes[3], strides[1] = sizes[3];
  strides[2] = sizes[2] * sizes[3];
}

// No query sees a later key.
inline std::vector<float> make_mask(int64_t queries, int64_t keys) {
  std::vector<float> mask(queries * keys, 0.0f);
  for (int64_t query = 0; query < queries; ++query)
    for (int64_t key = query + 1; key < keys; ++key) mask[query * keys + key] = -INFINITY;
  return mask;
}

// Attends to inputs in which `find_problem` finds none; returns a value of fdd_status.
inline int attend(const Inputs& in, const Options& options, fdd_type type, void* out,
                  fdd_parallel parallel, void* context) {
  const Sizes &query = in.query.sizes, &value = in.value.sizes;
  fdd_attention_shape shape{};
  shape.batch = query[0], shape.queries = query[1], shape.heads = query[2];
  shape.keys = value[1], shape.head_size = query[3], shape.value_size = value[3];
  lay_out(shape.q, query), lay_out(shape.k, in.key.sizes), lay_out(shape.v, value);
  lay_out(shape.o, find_output(in));
  shape.scale = options.scale;
  shape.in = shape.out = shape.products = type;
  std::vector<float> mask;
  if (options.is_causal) {
    mask = make_mask(shape.queries, shape.keys);
    shape.bias = mask.data();
    shape.bias_stride[2] = shape.keys, shape.bias_stride[3] = 1;
  } else if (!in.bias.sizes.empty()) {
    shape.bias = static_cast<const float*>(in.bias.data);
    int64_t stride = 1;
    for (int axis = 3; axis >= 0; --axis) {
      const int64_t size = in.bias.sizes[axis];
      shape.bias_stride[axis] = size == 1 ? 0 : stride;
      stride *= size;
    }
  }
  return fdd_attention(&shape, in.query.data, in.key.data, in.value.data, out, parallel, context, 0);
}

}  // namespace fdd
#endif
