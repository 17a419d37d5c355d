#include "nibble/linalg/machine_speed.h"

#include <cmath>

#include <gtest/gtest.h>

#include "nibble/base/aligned_buffer.h"
#include "nibble/kernels/probe.h"

namespace nibble::linalg {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

void expect_speed(double rate) {
  EXPECT_TRUE(std::isfinite(rate));
  EXPECT_GT(rate, 0);
}

TEST(MachineSpeed, IsPositiveAndFinite) {
  for (const size_t threads : {1u, 2u}) {
    ThreadPool pool(threads);
    const MachineSpeed speed = measure_machine({.buffer_bytes = 8 * kMiB, .seconds = 0.05}, pool);
    EXPECT_EQ(speed.threads, threads);
    EXPECT_EQ(speed.buffer_bytes, 8 * kMiB);
    for (const double rate : {speed.read_one_stream, speed.read.one_thread, speed.read.all_threads,
                              speed.f32.one_thread, speed.f32.all_threads}) {
      expect_speed(rate);
    }
    EXPECT_EQ(speed.int8.all_threads > 0, cpu_target() != CpuTarget::kScalar);
    EXPECT_GE(speed.read.one_thread, speed.read_one_stream);
    expect_speed(measure_gemm(fastest_arithmetic(), pool));
  }
}

TEST(MachineSpeed, AProbeMeasuresEveryPoolAgainAndAgain) {
  MachineProbe probe(8 * kMiB);
  EXPECT_EQ(probe.buffer_bytes(), 8 * kMiB);
  for (const size_t threads : {1u, 2u, 1u}) {
    ThreadPool pool(threads);
    const PoolSpeed speed = probe.measure(0.02, pool);
    expect_speed(speed.read);
    expect_speed(speed.f32);
    EXPECT_EQ(speed.int8 > 0, cpu_target() != CpuTarget::kScalar);
  }
}

TEST(MachineSpeed, TheBufferIsLargerThanTheCacheAndSmallerThanMemory) {
  EXPECT_EQ(probe_buffer_bytes(32 * kMiB, 0), 64 * kMiB);
  EXPECT_EQ(probe_buffer_bytes(260 * kMiB, 8192 * kMiB), 520 * kMiB);
  EXPECT_EQ(probe_buffer_bytes(4096 * kMiB, 65536 * kMiB), 1024 * kMiB);
  EXPECT_EQ(probe_buffer_bytes(260 * kMiB, 400 * kMiB), 100 * kMiB);
}

// A loop that left something out would be a fast one: every bit changes the result.
TEST(Probe, ReadsEveryByteOfEveryStream) {
  AlignedBuffer buffer(16 * kernels::kProbeStep);
  for (const CpuTarget target : supported_cpu_targets()) {
    for (const size_t streams : {1u, 2u, 4u, 8u}) {
      const size_t stream_bytes = buffer.size() / streams;
      const auto read = [&] { return kernels::read_streams(buffer.data(), stream_bytes, streams, target); };
      const uint64_t before = read();
      for (size_t i = 0; i < buffer.size(); i += 37) {
        buffer.data()[i] ^= std::byte{4};
        EXPECT_NE(read(), before) << cpu_target_name(target) << ", " << streams << " streams, byte " << i;
        buffer.data()[i] ^= std::byte{4};
      }
    }
  }
}

}  // namespace
}  // namespace nibble::linalg
