// The attention kernel as an operator of OpenVINO, and of the ONNX graphs that it reads.
#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/frontend/onnx/extension/conversion.hpp>
#include <openvino/op/op.hpp>
#include <tbb/parallel_for.h>

#include "attention_operator.h"

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

fdd::Tensor read(const ov::Tensor& tensor) {
  const ov::Shape shape = tensor.get_shape();
  return {fdd::Sizes(shape.begin(), shape.end()), tensor.data()};
}

class NativeAttention : public ov::op::Op {
 public:
  OPENVINO_OP("NativeAttention", "fastdeploy_diffusion");

  NativeAttention() = default;
  NativeAttention(const ov::OutputVector& inputs, const fdd::Options& options)
      : Op(inputs), options_(options) {
    constructor_validate_and_infer_types();
  }

  void validate_and_infer_types() override {
    const ov::PartialShape query = get_input_partial_shape(0), value = get_input_partial_shape(2);
    ov::PartialShape output = query;
    if (query.rank().is_static() && value.rank().is_static()) output[3] = value[3];
    set_output_type(0, get_input_element_type(0), output);
  }

  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
    return std::make_shared<NativeAttention>(inputs, options_);
  }

  bool visit_attributes(ov::AttributeVisitor& visitor) override {
    visitor.on_attribute("scale", options_.scale);
    visitor.on_attribute("is_causal", options_.is_causal);
    return true;
  }

  bool has_evaluate() const override { return true; }

  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
    fdd::Inputs in{read(inputs[0]), read(inputs[1]), read(inputs[2]), {}};
    if (inputs.size() > 3) in.bias = read(inputs[3]);
    const char* const problem = fdd::find_problem(in, options_);
    OPENVINO_ASSERT(!problem, "NativeAttention: ", problem ? problem : "");
    const fdd::Sizes sizes = fdd::find_output(in);
    outputs[0].set_shape(ov::Shape(sizes.begin(), sizes.end()));
    const bool is_narrow = inputs[0].get_element_type() == ov::element::bf16;
    const int status = fdd::attend(in, options_, is_narrow ? FDD_BF16 : FDD_F32, outputs[0].data(),
                                   run_in_arena, nullptr);
    OPENVINO_ASSERT(status == FDD_OK, "NativeAttention ends with status ", status);
    return true;
  }

 private:
  fdd::Options options_;
};

ov::OutputVector convert(const ov::frontend::NodeContext& node) {
  ov::OutputVector inputs;
  for (size_t index = 0; index < node.get_input_size(); ++index)
    inputs.push_back(node.get_input(static_cast<int>(index)));
  const fdd::Options options{node.get_attribute<float>("scale"),
                             node.get_attribute<int64_t>("is_causal", 0) != 0};
  return std::make_shared<NativeAttention>(inputs, options)->outputs();
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>({
    std::make_shared<ov::OpExtension<NativeAttention>>(),
    std::make_shared<ov::frontend::onnx::ConversionExtension>("NativeAttention",
                                                              "fastdeploy_diffusion", convert),
}));
