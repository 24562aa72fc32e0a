// The attention kernel as an operator of OpenVINO, and of the ONNX graphs that it reads.
//
// Inputs: queries (B, N, heads, dim), keys and values (B, M, heads, dim), and, where there is one, a
// bias of scores in float32 that broadcasts to (B, heads, N, M). Output: (B, N, heads, dim), in the
// type of the queries. In bfloat16, products are rounded to that; in float32 they are exact.
#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/frontend/onnx/extension/conversion.hpp>
#include <openvino/op/op.hpp>
#include <tbb/parallel_for.h>

#include <cmath>
#include <vector>

#include "attention.h"

namespace {

// OpenVINO runs operators inside its arena: its own threads, as many as the session has.
void run_in_arena(void*, int64_t tasks, void (*task)(void*, int64_t), void* argument) {
  tbb::parallel_for(
      tbb::blocked_range<int64_t>(0, tasks, 1),
      [=](const tbb::blocked_range<int64_t>& range) {
        for (int64_t index = range.begin(); index < range.end(); ++index) task(argument, index);
      },
      tbb::simple_partitioner());
}

// Tokens before heads.
void lay_out(int64_t (&strides)[3], const ov::Shape& shape) {
  strides[0] = shape[1] * shape[2] * shape[3], strides[1] = shape[3];
  strides[2] = shape[2] * shape[3];
}

// No query sees a later key.
std::vector<float> make_mask(int64_t queries, int64_t keys) {
  std::vector<float> mask(queries * keys, 0.0f);
  for (int64_t query = 0; query < queries; ++query)
    for (int64_t key = query + 1; key < keys; ++key) mask[query * keys + key] = -INFINITY;
  return mask;
}

class NativeAttention : public ov::op::Op {
 public:
  OPENVINO_OP("NativeAttention", "fastdeploy_diffusion");

  NativeAttention() = default;
  NativeAttention(const ov::OutputVector& inputs, float scale, bool is_causal)
      : Op(inputs), scale_(scale), is_causal_(is_causal) {
    constructor_validate_and_infer_types();
  }

  void validate_and_infer_types() override {
    const ov::PartialShape query = get_input_partial_shape(0), value = get_input_partial_shape(2);
    ov::PartialShape output = query;
    if (query.rank().is_static() && value.rank().is_static()) output[3] = value[3];
    set_output_type(0, get_input_element_type(0), output);
  }

  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
    return std::make_shared<NativeAttention>(inputs, scale_, is_causal_);
  }

  bool visit_attributes(ov::AttributeVisitor& visitor) override {
    visitor.on_attribute("scale", scale_);
    visitor.on_attribute("is_causal", is_causal_);
    return true;
  }

  bool has_evaluate() const override { return true; }

  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
    const ov::Shape query = inputs[0].get_shape(), value = inputs[2].get_shape();
    outputs[0].set_shape({query[0], query[1], query[2], value[3]});
    const bool is_narrow = inputs[0].get_element_type() == ov::element::bf16;
    fdd_attention_shape shape{};
    shape.batch = query[0], shape.queries = query[1], shape.heads = query[2];
    shape.keys = value[1], shape.head_size = query[3], shape.value_size = value[3];
    lay_out(shape.q, query), lay_out(shape.k, inputs[1].get_shape()), lay_out(shape.v, value);
    lay_out(shape.o, outputs[0].get_shape());
    shape.scale = scale_;
    shape.in = shape.out = shape.products = is_narrow ? FDD_BF16 : FDD_F32;
    std::vector<float> mask;
    if (is_causal_) {
      mask = make_mask(shape.queries, shape.keys);
      shape.bias = mask.data();
      shape.bias_stride[2] = shape.keys, shape.bias_stride[3] = 1;
    } else if (inputs.size() > 3) {
      shape.bias = inputs[3].data<const float>();
      int64_t stride = 1;
      for (int axis = 3; axis >= 0; --axis) {
        const int64_t size = inputs[3].get_shape()[axis];
        shape.bias_stride[axis] = size == 1 ? 0 : stride;
        stride *= size;
      }
    }
    const int status = fdd_attention(&shape, inputs[0].data(), inputs[1].data(), inputs[2].data(),
                                     outputs[0].data(), run_in_arena, nullptr, 0);
    OPENVINO_ASSERT(status == FDD_OK, "attention refuses its inputs, with status ", status);
    return true;
  }

 private:
  float scale_ = 1;
  bool is_causal_ = false;
};

ov::OutputVector convert(const ov::frontend::NodeContext& node) {
  ov::OutputVector inputs;
  for (size_t index = 0; index < node.get_input_size(); ++index)
    inputs.push_back(node.get_input(static_cast<int>(index)));
  return std::make_shared<NativeAttention>(inputs, node.get_attribute<float>("scale"),
                                           node.get_attribute<int64_t>("is_causal", 0) != 0)
      ->outputs();
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>({
    std::make_shared<ov::OpExtension<NativeAttention>>(),
    std::make_shared<ov::frontend::onnx::ConversionExtension>("NativeAttention",
                                                              "fastdeploy_diffusion", convert),
}));
