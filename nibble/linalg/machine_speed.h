#ifndef NIBBLE_LINALG_MACHINE_SPEED_H_
#define NIBBLE_LINALG_MACHINE_SPEED_H_

// What the processors can do at most, measured: what speeds are divided by and estimates made from.

#include <cstddef>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/thread_pool.h"
#include "nibble/linalg/gemm.h"

namespace nibble::linalg {

// Bytes and operations per second; a multiplication and an addition are two operations.
struct Peak {
  double one_thread = 0;
  double all_threads = 0;
};

struct MachineSpeed {
  size_t threads = 1;
  size_t buffer_bytes = 0;     // that were read, again and again
  size_t streams = 1;          // per thread, with which all threads read fastest
  double read_one_stream = 0;  // bytes/s of one thread that reads one linear stream
  Peak read = {};              // bytes/s, with as many streams per thread as help
  Peak f32 = {};               // operations/s
  Peak int8 = {};              // operations/s; 0 where the instruction set has no such product
};

struct MeasureOptions {
  // Read from: several times the last-level cache. With less, a part of it stays there.
  size_t buffer_bytes = size_t{512} << 20;
  double seconds = 1.0;  // about, beside the time to fill the buffer
};

// Takes the best of short pieces, since another process or a virtual machine's neighbour may take a core
// away for a moment. Stops early after Ctrl-C, with what it has.
MachineSpeed measure_machine(const MeasureOptions& options, ThreadPool& pool);

// What all threads of a pool reach together, per second.
struct PoolSpeed {
  double read = 0;     // bytes
  size_t streams = 1;  // per thread, with which that was
  double f32 = 0;      // operations
  double int8 = 0;     // 0 where the instruction set has no such product
};

// The same figures again and again, in the pauses of something else that is timed: the buffer is filled once.
class MachineProbe {
 public:
  explicit MachineProbe(size_t buffer_bytes);

  // Takes about `seconds`; the best of short pieces, as above.
  PoolSpeed measure(double seconds, ThreadPool& pool);
  size_t buffer_bytes() const { return buffer_.size(); }

 private:
  AlignedBuffer buffer_;
};

// A buffer that the last-level cache cannot hold, and that memory can: twice the cache, from 64 MiB to 1 GiB,
// a quarter of `usable_memory` at most (0: not known).
size_t probe_buffer_bytes(size_t last_level_cache, size_t usable_memory);

// Operations per second of products like those of a forward pass over many tokens; takes some 30 ms.
double measure_gemm(Arithmetic arithmetic, ThreadPool& pool);

}  // namespace nibble::linalg

#endif  // NIBBLE_LINALG_MACHINE_SPEED_H_
