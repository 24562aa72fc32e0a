// The attention kernel as an operator of ONNX Runtime, in float32.
#include <exception>
#include <memory>
#include <string>

#include "attention_operator.h"
#include "onnxruntime_interface.h"

namespace {

constexpr const char* NAME = "NativeAttention";
constexpr const char* DOMAIN_NAME = "fastdeploy_diffusion";
constexpr size_t INPUTS = 4;

// A status of the runtime's, which is null for success.
struct Failure {
  ort::Status* status;
};

class Runtime {
 public:
  explicit Runtime(const ort::Function* table) : table_(table) {}

  ort::Status* make_status(ort::ErrorCode code, const std::string& problem) const {
    return find<ort::Status* (*)(ort::ErrorCode, const char*)>(ort::CREATE_STATUS)(
        code, (std::string(NAME) + ": " + problem).c_str());
  }

  // Calls a function that returns a status.
  template <typename... Arguments>
  void call(ort::Place place, Arguments... arguments) const {
    if (ort::Status* const status = find<ort::Status* (*)(Arguments...)>(place)(arguments...))
      throw Failure{status};
  }

  // Runs what may throw, and returns a status.
  template <typename Task>
  ort::Status* guard(const Task& task) const {
    try {
      task();
      return nullptr;
    } catch (const Failure& failure) {
      return failure.status;
    } catch (const std::exception& error) {
      return make_status(ort::FAIL, error.what());
    }
  }

  fdd::Tensor read(const ort::Value* value) const {
    ort::TensorInfo* info = nullptr;
    call(ort::GET_TENSOR_INFO, value, &info);
    const std::unique_ptr<ort::TensorInfo, void (*)(ort::TensorInfo*)> owner(
        info, find<void (*)(ort::TensorInfo*)>(ort::RELEASE_TENSOR_INFO));
    size_t count = 0;
    call(ort::COUNT_AXES, static_cast<const ort::TensorInfo*>(info), &count);
    fdd::Sizes sizes(count);
    call(ort::GET_AXES, static_cast<const ort::TensorInfo*>(info), sizes.data(), count);
    return {sizes, find_data(const_cast<ort::Value*>(value))};
  }

  void* find_data(ort::Value* value) const {
    void* data = nullptr;
    call(ort::GET_TENSOR_DATA, value, &data);
    return data;
  }

 private:
  template <typename Signature>
  Signature find(ort::Place place) const {
    return reinterpret_cast<Signature>(table_[place]);
  }

  const ort::Function* table_;
};

// The threads of the session that runs an operator.
struct Threads {
  const Runtime& runtime;
  const ort::Context* context;
};

struct Work {
  void (*task)(void*, int64_t);
  void* argument;
};

void run_in_session(void* context, int64_t tasks, void (*task)(void*, int64_t), void* argument) {
  const Threads& threads = *static_cast<Threads*>(context);
  Work work{task, argument};
  void (*const run)(void*, size_t) = [](void* given, size_t index) {
    const Work& each = *static_cast<Work*>(given);
    each.task(each.argument, static_cast<int64_t>(index));
  };
  threads.runtime.call(ort::RUN_PARALLEL, threads.context, run, static_cast<size_t>(tasks),
                       size_t{0}, static_cast<void*>(&work));
}

struct Kernel {
  Runtime runtime;
  fdd::Options options;

  void compute(ort::Context* context) const {
    const auto* const reading = static_cast<const ort::Context*>(context);
    size_t count = 0;
    runtime.call(ort::COUNT_INPUTS, reading, &count);
    fdd::Tensor tensors[INPUTS];
    for (size_t index = 0; index < count; ++index) {
      const ort::Value* value = nullptr;
      runtime.call(ort::GET_INPUT, reading, index, &value);
      if (value) tensors[index] = runtime.read(value);
    }
    const fdd::Inputs in{tensors[0], tensors[1], tensors[2], tensors[3]};
    if (const char* const problem = fdd::find_problem(in, options))
      throw Failure{runtime.make_status(ort::INVALID_ARGUMENT, problem)};
    const fdd::Sizes sizes = fdd::find_output(in);
    ort::Value* output = nullptr;
    runtime.call(ort::GET_OUTPUT, context, size_t{0}, sizes.data(), sizes.size(), &output);
    Threads threads{runtime, context};
    const int status =
        fdd::attend(in, options, FDD_F32, runtime.find_data(output), run_in_session, &threads);
    if (status != FDD_OK)
      throw Failure{
          runtime.make_status(ort::FAIL, "the kernel ends with status " + std::to_string(status))};
  }
};

ort::Operator make_operator() {
  ort::Operator made{};
  made.version = ort::VERSION;
  made.get_name = [](const ort::Operator*) { return NAME; };
  made.get_provider = [](const ort::Operator*) -> const char* { return nullptr; };
  made.get_input_type = [](const ort::Operator*, size_t) { return ort::FLOAT; };
  made.count_inputs = [](const ort::Operator*) { return INPUTS; };
  made.get_output_type = [](const ort::Operator*, size_t) { return ort::FLOAT; };
  made.count_outputs = [](const ort::Operator*) { return size_t{1}; };
  made.get_input_presence = [](const ort::Operator*, size_t index) {
    return index < INPUTS - 1 ? ort::REQUIRED : ort::OPTIONAL;
  };
  made.get_input_memory = [](const ort::Operator*, size_t) { return ort::DEFAULT; };
  made.get_output_presence = [](const ort::Operator*, size_t) { return ort::REQUIRED; };
  made.create = [](const ort::Operator*, const ort::Function* table, const ort::KernelInfo* info,
                   void** kernel) {
    const Runtime runtime(table);
    return runtime.guard([&] {
      fdd::Options options;
      int64_t is_causal = 0;
      runtime.call(ort::GET_FLOAT_ATTRIBUTE, info, "scale", &options.scale);
      runtime.call(ort::GET_INT_ATTRIBUTE, info, "is_causal", &is_causal);
      options.is_causal = is_causal != 0;
      *kernel = new Kernel{runtime, options};
    });
  };
  made.compute = [](void* kernel, ort::Context* context) {
    const Kernel& self = *static_cast<Kernel*>(kernel);
    return self.runtime.guard([&] { self.compute(context); });
  };
  made.destroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  return made;
}

const ort::Operator attention = make_operator();

// Sessions refer to it for as long as they live, and this library lives as long as the process.
const ort::Domain* make_domain(const Runtime& runtime) {
  ort::Domain* domain = nullptr;
  runtime.call(ort::CREATE_DOMAIN, DOMAIN_NAME, &domain);
  runtime.call(ort::ADD_OPERATOR, domain, &attention);
  return domain;
}

}  // namespace

// ONNX Runtime looks for this name.
extern "C" FDD_PUBLIC ort::Status* RegisterCustomOps(ort::SessionOptions* options,
                                                     const ort::Base* base) {
  const ort::Function* const table = base->get_table(ort::VERSION);
  // Every version has the oldest functions, of which one makes the error.
  if (!table)
    return Runtime(base->get_table(1))
        .make_status(ort::FAIL, std::string("ONNX Runtime ") + base->get_version() +
                                    " is older than 1.17, which it needs");
  const Runtime runtime(table);
  return runtime.guard([&] {
    static const ort::Domain* const domain = make_domain(runtime);
    runtime.call(ort::ADD_DOMAIN, options, domain);
  });
}
