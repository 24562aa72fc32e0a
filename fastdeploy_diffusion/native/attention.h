/* Attention on CPUs: softmax(scale * q k^T + bias) v, for the adapters of engines.
 *
 * A C interface without threads and without state that a caller sees: threads come from the engine
 * that calls. attention.cpp implements it. */
#ifndef FDD_ATTENTION_H
#define FDD_ATTENTION_H

#include <stdint.h>

#if defined(__GNUC__)
#define FDD_PUBLIC __attribute__((visibility("default")))
#else
#define FDD_PUBLIC
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { FDD_F32 = 0, FDD_BF16 = 1 } fdd_type;

/* Sets of instructions, as bits; each computes whatever its predecessors do. */
typedef enum {
  FDD_PORTABLE = 1,    /* any processor */
  FDD_AVX2 = 2,        /* AVX2 and FMA */
  FDD_AVX512 = 4,      /* AVX-512 F, BW, DQ, VL */
  FDD_AVX512_BF16 = 8, /* and vdpbf16ps: products of bf16 */
  FDD_AMX_BF16 = 16    /* and tiles: products of bf16 */
} fdd_isa;

typedef enum {
  FDD_OK = 0,
  FDD_BAD_SHAPE = 1, /* a null pointer, a negative size, no key, an empty head, an unknown type */
  FDD_BAD_ISA = 2,   /* more or less than one bit, not of this CPU, or bf16 alone for f32 products */
  FDD_NO_MEMORY = 3  /* the output is unspecified */
} fdd_status;

/* Strides count elements; a head's values (the last axis) are contiguous. Batch, head and query
 * axes may be empty; a stride may be 0 or negative. */
typedef struct {
  int64_t batch, heads, queries, keys, head_size, value_size;
  int64_t q[3], k[3], v[3], o[3]; /* strides over batch, head, token */
  const float* bias;              /* added to the scaled scores; NULL for none */
  int64_t bias_stride[4];         /* over batch, head, query, key; 0 broadcasts */
  float scale;
  fdd_type in, out;
  /* FDD_F32: products and weights in f32, as exact as f32 is. FDD_BF16: q, k, v and the weights of
   * the softmax may be rounded to bf16, where that is faster; sums and exponents stay f32. */
  fdd_type products;
} fdd_attention_shape;

/* Calls task(argument, index) once for each index below tasks, in any order, on any threads, and
 * returns when all have returned. */
typedef void (*fdd_parallel)(void* context, int64_t tasks, void (*task)(void* argument, int64_t index),
                             void* argument);

/* Attends; returns a value of fdd_status. The output may overlap no input. Rows do not depend on
 * the number of threads. A row all of whose keys have a bias of -infinity is NaN, as softmax is.
 * parallel: NULL computes in the calling thread. isa: 0 for the fastest of this CPU for the
 * products asked for, or one bit of fdd_isa. */
FDD_PUBLIC int fdd_attention(const fdd_attention_shape* shape, const void* q, const void* k, const void* v,
                  void* out, fdd_parallel parallel, void* context, int isa);

/* The instruction sets of this CPU and system, as bits of fdd_isa. */
FDD_PUBLIC int fdd_attention_isas(void);

#ifdef __cplusplus
}
#endif
#endif
