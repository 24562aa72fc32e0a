/* What the adapter needs of ONNX Runtime's C interface, whose headers its wheels leave out.
 *
 * The interface is a table of functions that only grows: what has a place in it keeps that, and no
 * signature changes. Its versions are counted; a runtime refuses those that it does not have yet. */
#ifndef FDD_ONNXRUNTIME_INTERFACE_H
#define FDD_ONNXRUNTIME_INTERFACE_H

#include <cstddef>
#include <cstdint>

namespace ort {

// The first with all functions below: ONNX Runtime 1.17.
constexpr uint32_t VERSION = 17;

// Objects of the runtime, of which only pointers are known.
struct Status;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct Context;
struct Value;
struct TensorInfo;

typedef void (*Function)();

// Places in the table.
enum Place {
  CREATE_STATUS = 0,
  CREATE_DOMAIN = 26,
  ADD_OPERATOR = 27,
  ADD_DOMAIN = 28,
  GET_TENSOR_DATA = 51,
  COUNT_AXES = 61,
  GET_AXES = 62,
  GET_TENSOR_INFO = 65,
  GET_FLOAT_ATTRIBUTE = 85,
  GET_INT_ATTRIBUTE = 86,
  COUNT_INPUTS = 88,
  GET_INPUT = 90,
  GET_OUTPUT = 91,
  RELEASE_TENSOR_INFO = 99,
  RUN_PARALLEL = 274
};

enum ErrorCode { FAIL = 1, INVALID_ARGUMENT = 2 };
enum ElementType { FLOAT = 1 };
enum Presence { REQUIRED = 0, OPTIONAL = 1 };
enum Memory { DEFAULT = 0 };

struct Base {
  const Function* (*get_table)(uint32_t version);  // null if it has no such version
  const char* (*get_version)();
};

// An operator, as callbacks. Some may be null: those that throw if there is one that returns a
// status, and those without a signature here.
struct Operator {
  uint32_t version;
  Function create_throwing;
  const char* (*get_name)(const Operator*);
  const char* (*get_provider)(const Operator*);  // null for CPUs
  ElementType (*get_input_type)(const Operator*, size_t index);
  size_t (*count_inputs)(const Operator*);
  ElementType (*get_output_type)(const Operator*, size_t index);
  size_t (*count_outputs)(const Operator*);
  Function compute_throwing;
  void (*destroy)(void* kernel);
  Presence (*get_input_presence)(const Operator*, size_t index);
  Presence (*get_output_presence)(const Operator*, size_t index);
  Memory (*get_input_memory)(const Operator*, size_t index);
  Function variadic[4];  // asked for variadic inputs and outputs alone
  Status* (*create)(const Operator*, const Function* table, const KernelInfo*, void** kernel);
  Status* (*compute)(void* kernel, Context*);
  Function infer_shapes, versions[2], reuse[4];
};

}  // namespace ort
#endif
