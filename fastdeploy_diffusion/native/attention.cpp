// Attention on CPUs: chooses the instruction set, and shares the work.
//
// attention_block.inc computes; this file includes it once for each instruction set. The work is
// shared by (batch, head, block of queries), so that one head of many tokens keeps all threads busy.

#include "attention.h"

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

namespace {

constexpr float LOG2_E = 1.44269504088896340736f;

int64_t round_up(int64_t size, int64_t step) { return (size + step - 1) / step * step; }

// One head's first query, key, value, output and bias.
struct Head {
  const char *q, *k, *v;
  char* o;
  const float* bias;
};

// A row of bias in units of log2(e). The most negative finite values, with which models mask, stay
// finite, so that a row that is masked throughout is the mean of the values.
void read_bias(const float* from, int64_t stride, int64_t count, float* to) {
  for (int64_t j = 0; j < count; j++) {
    const float value = from[j * stride];
    to[j] = (value < -2.3e38f && value >= -FLT_MAX ? -2.3e38f : value) * LOG2_E;
  }
}

// Keeps the compiler from moving memory accesses past instructions of tiles, for GCC's intrinsics do
// not say what these read.
INLINE void finish_memory() { __asm__ volatile("" ::: "memory"); }

// What an instruction set offers; sizes are of 4 bytes each.
struct Kernel {
  int64_t rows, keys;  // of a block
  int64_t (*count_packed)(const fdd_attention_shape&);
  void (*pack)(const fdd_attention_shape&, const Head&, int64_t block, void* packed);
  int64_t (*count_scratch)(const fdd_attention_shape&);
  void (*attend)(const fdd_attention_shape&, const Head&, int64_t first, const void* packed,
                 float* scratch);
};

namespace portable {
#define LANES 4
#define PAIRS 0
#define TILES 0
#define BLOCK_ROWS 24
#define BLOCK_KEYS 256
#define GROUP_ROWS 4
#include "attention_block.inc"
}  // namespace portable

#if defined(__x86_64__)
#if defined(__clang__)
#define DO_PRAGMA(text) _Pragma(#text)
#define BEGIN_TARGET(features) \
  DO_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_TARGET _Pragma("clang attribute pop")
#else
#define DO_PRAGMA(text) _Pragma(#text)
#define BEGIN_TARGET(features) _Pragma("GCC push_options") DO_PRAGMA(GCC target(features))
#define END_TARGET _Pragma("GCC pop_options")
#endif

BEGIN_TARGET("avx2,fma")
namespace avx2 {
#define LANES 8
#define PAIRS 0
#define TILES 0
#define BLOCK_ROWS 48
#define BLOCK_KEYS 256
#define GROUP_ROWS 6
#include "attention_block.inc"
}  // namespace avx2
END_TARGET

BEGIN_TARGET("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
namespace avx512 {
#define LANES 16
#define PAIRS 0
#define TILES 0
#define BLOCK_ROWS 24
#define BLOCK_KEYS 256
#define GROUP_ROWS 12
#include "attention_block.inc"
}  // namespace avx512
END_TARGET

BEGIN_TARGET("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
namespace avx512_bf16 {
#define LANES 16
#define PAIRS 1
#define TILES 0
#define BLOCK_ROWS 24
#define BLOCK_KEYS 256
#define GROUP_ROWS 12
#include "attention_block.inc"
}  // namespace avx512_bf16
END_TARGET

BEGIN_TARGET("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")
namespace amx {
#define LANES 16
#define PAIRS 1
#define TILES 1
#define BLOCK_ROWS 32
#define BLOCK_KEYS 256
#define GROUP_ROWS 16
#include "attention_block.inc"

struct alignas(64) TileConfig {
  uint8_t palette, start, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
};

// Tiles of 16 rows of 64 bytes while it lives; then what the thread had configured before, for the
// engine's own kernels may rely on it.
class Tiles {
 public:
  Tiles() {
    _tile_storeconfig(&before_);
    finish_memory();
    TileConfig config = {1, 0, {}, {}, {}};
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
    finish_memory();
    _tile_loadconfig(&config);
  }
  ~Tiles() {
    finish_memory();
    _tile_loadconfig(&before_);
  }

 private:
  TileConfig before_;
};

static void attend_in_tiles(const fdd_attention_shape& shape, const Head& head, int64_t first,
                            const void* packed, float* scratch) {
  const Tiles tiles;
  attend(shape, head, first, packed, scratch);
}
}  // namespace amx
END_TARGET

// Linux lends the tiles' registers to a process that asks once; other systems are not asked.
bool request_tiles() {
#if defined(__linux__)
  constexpr long REQUEST = 0x1023 /* ARCH_REQ_XCOMP_PERM */, TILE_DATA = 18;
  return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
  return false;
#endif
}

int detect() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return FDD_PORTABLE;
  const bool has_fma = c & 1u << 12, has_xgetbv = c & 1u << 27;
  if (!has_xgetbv || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return FDD_PORTABLE;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const auto saves = [low](unsigned states) { return (low & states) == states; };
  int found = FDD_PORTABLE;
  if (!saves(0x6) || !has_fma || !(b & 1u << 5)) return found;
  found |= FDD_AVX2;
  constexpr unsigned F = 1u << 16, DQ = 1u << 17, BW = 1u << 30, VL = 1u << 31;
  constexpr unsigned ALL = F | DQ | BW | VL;
  if (!saves(0xe6) || (b & ALL) != ALL) return found;
  found |= FDD_AVX512;
  constexpr unsigned TILE_BITS = 1u << 24 | 1u << 22;  // amx-tile, amx-bf16
  const bool has_tiles = (d & TILE_BITS) == TILE_BITS;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & 1u << 5)) return found;
  found |= FDD_AVX512_BF16;
  if (has_tiles && saves(0x60000) && request_tiles()) found |= FDD_AMX_BF16;
  return found;
}

// Intel's vdpbf16ps takes twice as long as the multiplications of float32 that do as much; AMD's
// does not. Where there are tiles it is not taken.
bool multiplies_bf16_slowly() {
  unsigned a, b, c, d;
  constexpr unsigned GENU = 0x756e6547, INEI = 0x49656e69, NTEL = 0x6c65746e;
  return __get_cpuid(0, &a, &b, &c, &d) && b == GENU && d == INEI && c == NTEL;
}
#else
int detect() { return FDD_PORTABLE; }
bool multiplies_bf16_slowly() { return false; }
#endif

// The fastest for products that may be rounded to bf16, or must not.
int choose_isa(bool rounds) {
  static const bool is_slow = multiplies_bf16_slowly();
  int usable = fdd_attention_isas();
  if (!rounds) usable &= FDD_PORTABLE | FDD_AVX2 | FDD_AVX512;
  if (is_slow) usable &= ~FDD_AVX512_BF16;
  int isa = 0;
  for (int each = FDD_PORTABLE; each <= FDD_AMX_BF16; each *= 2)
    if (usable & each) isa = each;
  return isa;
}

const Kernel* find_kernel(int isa) {
  switch (isa) {
    case FDD_PORTABLE: return &portable::kernel;
#if defined(__x86_64__)
    case FDD_AVX2: return &avx2::kernel;
    case FDD_AVX512: return &avx512::kernel;
    case FDD_AVX512_BF16: return &avx512_bf16::kernel;
    case FDD_AMX_BF16: return &amx::kernel;
#endif
  }
  return nullptr;
}

bool multiplies_bf16(int isa) { return isa >= FDD_AVX512_BF16; }

// Memory of a thread that grows to what was needed, and is kept: pages that are new cost as much as
// the attention of small heads.
class Buffer {
 public:
  ~Buffer() { free(memory_); }
  float* reserve(int64_t floats) {  // null if there is no memory
    if (floats > size_) {
      free(memory_);
      memory_ = (float*)aligned_alloc(64, round_up(floats, 16) * sizeof(float));
      size_ = memory_ ? floats : 0;
    }
    return memory_;
  }

 private:
  float* memory_ = nullptr;
  int64_t size_ = 0;
};

thread_local Buffer packed_buffer, scratch_buffer;

// One call: heads in waves, each packed before it is attended to, so that packed keys and values
// take a bounded room.
struct Call {
  const fdd_attention_shape& shape;
  const Kernel& kernel;
  const char *q, *k, *v;
  char* o;
  int64_t key_blocks, query_blocks;
  int64_t packed_size;  // of a head
  float* packed;
  int64_t first_head;  // of the wave
  std::atomic<bool> has_failed{false};

  Head locate(int64_t index) const {
    const int64_t batch = index / shape.heads, head = index % shape.heads;
    const int64_t in = shape.in == FDD_F32 ? 4 : 2, out = shape.out == FDD_F32 ? 4 : 2;
    const auto offset = [=](const int64_t* strides) {
      return batch * strides[0] + head * strides[1];
    };
    return {q + offset(shape.q) * in, k + offset(shape.k) * in, v + offset(shape.v) * in,
            o + offset(shape.o) * out, shape.bias ? shape.bias + offset(shape.bias_stride) : nullptr};
  }
  static void pack(void* argument, int64_t index) {
    const Call& call = *(const Call*)argument;
    const int64_t head = index / call.key_blocks;
    call.kernel.pack(call.shape, call.locate(call.first_head + head), index % call.key_blocks,
                     call.packed + head * call.packed_size);
  }
  static void attend(void* argument, int64_t index) {
    Call& call = *(Call*)argument;
    float* scratch = scratch_buffer.reserve(call.kernel.count_scratch(call.shape));
    if (!scratch) {
      call.has_failed = true;
      return;
    }
    const int64_t head = index / call.query_blocks;
    call.kernel.attend(call.shape, call.locate(call.first_head + head),
                       index % call.query_blocks * call.kernel.rows,
                       call.packed + head * call.packed_size, scratch);
  }
};

bool is_valid(const fdd_attention_shape& s) {
  const auto is_type = [](fdd_type type) { return type == FDD_F32 || type == FDD_BF16; };
  return s.batch >= 0 && s.heads >= 0 && s.queries >= 0 && s.keys > 0 && s.head_size > 0 &&
         s.value_size > 0 && is_type(s.in) && is_type(s.out) && is_type(s.products);
}

void run_here(void*, int64_t tasks, void (*task)(void*, int64_t), void* argument) {
  for (int64_t i = 0; i < tasks; i++) task(argument, i);
}

}  // namespace

extern "C" int fdd_attention_isas(void) {
  static const int isas = detect();
  return isas;
}

extern "C" int fdd_attention(const fdd_attention_shape* shape, const void* q, const void* k,
                             const void* v, void* out, fdd_parallel parallel, void* context,
                             int isa) {
  if (!shape || !is_valid(*shape)) return FDD_BAD_SHAPE;
  const int64_t heads = shape->batch * shape->heads;
  if (heads == 0 || shape->queries == 0) return FDD_OK;
  if (!q || !k || !v || !out) return FDD_BAD_SHAPE;
  if (!isa) isa = choose_isa(shape->products == FDD_BF16);
  const Kernel* kernel = find_kernel(isa);
  if (!kernel || !(fdd_attention_isas() & isa)) return FDD_BAD_ISA;
  if (multiplies_bf16(isa) && shape->products == FDD_F32) return FDD_BAD_ISA;
  if (!parallel) parallel = run_here;

  constexpr int64_t WAVE = int64_t(16) << 18;  // 16 MiB of packed keys and values, or one head
  const int64_t packed_size = round_up(kernel->count_packed(*shape), 16);
  const int64_t wave = std::clamp<int64_t>(WAVE / packed_size, 1, heads);
  float* packed = packed_buffer.reserve(wave * packed_size);
  if (!packed) return FDD_NO_MEMORY;
  Call call{*shape,
            *kernel,
            (const char*)q,
            (const char*)k,
            (const char*)v,
            (char*)out,
            (shape->keys + kernel->keys - 1) / kernel->keys,
            (shape->queries + kernel->rows - 1) / kernel->rows,
            packed_size,
            packed,
            0};
  for (; call.first_head < heads; call.first_head += wave) {
    const int64_t count = std::min(wave, heads - call.first_head);
    parallel(context, count * call.key_blocks, Call::pack, &call);
    parallel(context, count * call.query_blocks, Call::attend, &call);
  }
  return call.has_failed ? FDD_NO_MEMORY : FDD_OK;
}
