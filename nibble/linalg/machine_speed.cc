#include "nibble/linalg/machine_speed.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <vector>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/cancel.h"
#include "nibble/kernels/probe.h"

namespace nibble::linalg {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::array<size_t, 4> kStreams = {1, 2, 4, 8};
constexpr size_t kMiB = size_t{1} << 20;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The best rate of several pieces of work within `seconds`, one at least. work() returns how much it did.
template <class Work>
double best_rate(double seconds, Work work) {
  double best = 0;
  const Clock::time_point start = Clock::now();
  do {
    const Clock::time_point begin = Clock::now();
    const double done = work();
    const double took = seconds_since(begin);
    if (took > 0) best = std::max(best, done / took);
  } while (seconds_since(start) < seconds && !cancel_requested());
  return best;
}

// Walks through the buffer piece by piece, so that a piece has left the caches when its turn comes again.
class Reader {
 public:
  // bytes_per_thread: read in one piece; a multiple of the probe's step for any number of streams.
  Reader(const AlignedBuffer& buffer, size_t bytes_per_thread) : buffer_(buffer), piece_(bytes_per_thread) {}

  // Every thread reads one piece; returns the bytes of all.
  double read(size_t threads, size_t streams, ThreadPool& pool) {
    const size_t pieces = buffer_.size() / piece_;
    threads = std::min(threads, pieces);
    const auto work = [&](size_t begin, size_t end, size_t) {
      for (size_t t = begin; t < end; ++t) {
        const std::byte* const data = buffer_.data() + (next_ + t) % pieces * piece_;
        checksum_ ^= kernels::read_streams(data, piece_ / streams, streams);
      }
    };
    if (threads == 1) {
      work(0, 1, 0);
    } else {
      pool.parallel_for(threads, 1, work);
    }
    next_ = (next_ + threads) % pieces;
    return static_cast<double>(threads * piece_);
  }

 private:
  const AlignedBuffer& buffer_;
  const size_t piece_;
  size_t next_ = 0;
  std::atomic<uint64_t> checksum_ = 0;
};

// How often per second `threads` threads do work().
template <class Work>
double best_rate_of(size_t threads, double seconds, ThreadPool& pool, Work work) {
  const auto on_each = [&](size_t begin, size_t end, size_t) {
    for (size_t t = begin; t < end; ++t) work();
  };
  return best_rate(seconds, [&] {
    pool.parallel_for(threads, 1, on_each);
    return static_cast<double>(threads);
  });
}

// One thread, then all of them.
template <class Work>
Peak best_peak(double seconds, ThreadPool& pool, Work work) {
  Peak peak;
  peak.one_thread = best_rate_of(1, seconds / 2, pool, work);
  peak.all_threads =
      pool.num_threads() == 1 ? peak.one_thread : best_rate_of(pool.num_threads(), seconds / 2, pool, work);
  return peak;
}

Peak scaled(Peak peak, double factor) { return {peak.one_thread * factor, peak.all_threads * factor}; }

// 16 MiB per thread and piece, or what there is: long enough to time, short enough to lose a disturbed one.
// Pages that nobody has written are all the kernel's one page of zeros, which a cache holds.
AlignedBuffer written_buffer(size_t bytes) {
  AlignedBuffer buffer(bytes);
  std::memset(buffer.data(), 1, buffer.size());
  return buffer;
}

size_t piece_bytes(size_t buffer_bytes, size_t threads) {
  constexpr size_t kUnit = kernels::kProbeStep * kStreams.back();
  return std::max(kUnit, std::min(16 * kMiB, buffer_bytes / threads) / kUnit * kUnit);
}

void measure_reading(const MeasureOptions& options, ThreadPool& pool, MachineSpeed& speed) {
  const size_t threads = pool.num_threads();
  const size_t piece = piece_bytes(options.buffer_bytes, threads);
  const AlignedBuffer buffer =
      written_buffer(std::max(piece * threads, options.buffer_bytes / piece * piece));
  speed.buffer_bytes = buffer.size();
  Reader reader(buffer, piece);
  const double each = options.seconds * 0.7 / (2.0 * kStreams.size());
  for (const size_t streams : kStreams) {
    const double one = best_rate(each, [&] { return reader.read(1, streams, pool); });
    const double all =
        threads == 1 ? one : best_rate(each, [&] { return reader.read(threads, streams, pool); });
    if (streams == 1) speed.read_one_stream = one;
    speed.read.one_thread = std::max(speed.read.one_thread, one);
    if (all > speed.read.all_threads) {
      speed.read.all_threads = all;
      speed.streams = streams;
    }
  }
}

// Some 100 us: more than it takes to wake a thread that has just worked.
constexpr size_t kRounds = 20'000;

void work_f32() { kernels::multiply_add_f32(kRounds); }
void work_int8() { kernels::multiply_add_int8(kRounds); }

// Operations of one of them.
double f32_operations() { return kernels::multiply_add_f32(1) * static_cast<double>(kRounds); }
double int8_operations() { return kernels::multiply_add_int8(1) * static_cast<double>(kRounds); }

}  // namespace

MachineSpeed measure_machine(const MeasureOptions& options, ThreadPool& pool) {
  MachineSpeed speed;
  speed.threads = pool.num_threads();
  measure_reading(options, pool, speed);
  const double each = options.seconds * 0.15;
  speed.f32 = scaled(best_peak(each, pool, work_f32), f32_operations());
  const double int8 = int8_operations();
  if (int8 > 0) speed.int8 = scaled(best_peak(each, pool, work_int8), int8);
  return speed;
}

MachineProbe::MachineProbe(size_t buffer_bytes)
    : buffer_(written_buffer(std::max(piece_bytes(buffer_bytes, 1), buffer_bytes))) {}

PoolSpeed MachineProbe::measure(double seconds, ThreadPool& pool) {
  const size_t threads = pool.num_threads();
  PoolSpeed speed;
  Reader reader(buffer_, piece_bytes(buffer_.size(), threads));
  for (const size_t streams : kStreams) {
    const double rate =
        best_rate(seconds * 0.7 / kStreams.size(), [&] { return reader.read(threads, streams, pool); });
    if (rate <= speed.read) continue;
    speed.read = rate;
    speed.streams = streams;
  }
  speed.f32 = best_rate_of(threads, seconds * 0.15, pool, work_f32) * f32_operations();
  const double int8 = int8_operations();
  if (int8 > 0) speed.int8 = best_rate_of(threads, seconds * 0.15, pool, work_int8) * int8;
  return speed;
}

size_t probe_buffer_bytes(size_t last_level_cache, size_t usable_memory) {
  size_t bytes = std::clamp(2 * last_level_cache, 64 * kMiB, 1024 * kMiB);
  if (usable_memory > 0) bytes = std::min(bytes, std::max(kMiB, usable_memory / 4));
  return bytes;
}

double measure_gemm(Arithmetic arithmetic, ThreadPool& pool) {
  constexpr size_t kRows = 512;
  constexpr size_t kWidth = 1024;
  constexpr double kSeconds = 0.03;
  const std::vector<float> a(kRows * kWidth, 0.5f);
  const std::vector<float> b(kWidth * kWidth, 0.25f);
  std::vector<float> c(kRows * kWidth);
  const auto multiply = [&] {
    gemm({{a.data(), kRows, kWidth}}, {{b.data(), kWidth, kWidth}, true},
         MatrixView<float>(c.data(), kRows, kWidth), {.arithmetic = arithmetic}, pool);
  };
  multiply();  // wakes the threads
  const Clock::time_point start = Clock::now();
  double operations = 0;
  double seconds = 0;
  do {
    multiply();
    operations += 2.0 * kRows * kWidth * kWidth;
    seconds = seconds_since(start);
  } while (seconds < kSeconds);
  return operations / seconds;
}

}  // namespace nibble::linalg
