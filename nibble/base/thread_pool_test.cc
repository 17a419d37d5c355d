#include "nibble/base/thread_pool.h"

#include <atomic>
#include <vector>

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(ThreadPool, EveryIndexIsVisitedOnce) {
  for (const size_t threads : {1u, 2u, 3u, 8u}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    for (const size_t count : {0u, 1u, 7u, 64u, 1000u}) {
      for (const size_t grain : {0u, 1u, 16u, 5000u}) {
        std::vector<std::atomic<int>> visits(count);
        pool.parallel_for(count, grain, [&](size_t begin, size_t end, size_t worker) {
          ASSERT_LT(worker, threads);
          ASSERT_LE(begin, end);
          for (size_t i = begin; i < end; ++i) ++visits[i];
        });
        for (size_t i = 0; i < count; ++i) EXPECT_EQ(visits[i], 1) << "index " << i;
      }
    }
  }
}

TEST(ThreadPool, RangesAreMultiplesOfTheGrain) {
  ThreadPool pool(3);
  pool.parallel_for(1000, 16, [](size_t begin, size_t end, size_t) {
    EXPECT_EQ(begin % 16, 0u);
    EXPECT_TRUE(end % 16 == 0 || end == 1000);
  });
}

TEST(ThreadPool, ManySmallLoopsLeaveNobodyBehind) {
  ThreadPool pool(4);
  std::atomic<size_t> sum = 0;
  for (size_t i = 0; i < 2000; ++i) {
    pool.parallel_for(8, 1, [&](size_t begin, size_t end, size_t) { sum += end - begin; });
  }
  EXPECT_EQ(sum, 16000u);
}

}  // namespace
}  // namespace nibble
