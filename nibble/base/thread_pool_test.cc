#include "nibble/base/thread_pool.h"

#include <atomic>
#include <thread>
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

// Made-up nodes: where their threads really run does not matter here.
std::vector<NumaNode> made_up_nodes(std::initializer_list<size_t> sizes) {
  const size_t cpu = read_machine().cpus_allowed.at(0);
  std::vector<NumaNode> nodes;
  for (const size_t size : sizes) nodes.push_back({nodes.size(), std::vector<size_t>(size, cpu), 0});
  return nodes;
}

TEST(ThreadPool, EveryIndexOfEveryPartIsVisitedOnceInAnyNumberOfNodes) {
  std::thread([] {  // a pool with nodes binds its caller
    for (const auto& nodes :
         {made_up_nodes({}), made_up_nodes({4}), made_up_nodes({1, 3}), made_up_nodes({2, 2, 2})}) {
      for (const size_t threads : {1u, 2u, 4u, 7u}) {
        ThreadPool pool(threads, nodes);
        EXPECT_EQ(pool.num_threads(), threads);
        for (const size_t grain : {1u, 4u, 100u}) {
          const std::vector<size_t> counts = {37, 0, 1, 500, 64};
          std::vector<std::vector<std::atomic<int>>> visits;
          for (const size_t count : counts) visits.emplace_back(count);
          pool.parallel_for_parts(counts, grain, [&](size_t part, size_t begin, size_t end, size_t worker) {
            ASSERT_LT(worker, threads);
            ASSERT_LT(begin, end);
            for (size_t i = begin; i < end; ++i) ++visits[part][i];
          });
          for (size_t part = 0; part < counts.size(); ++part) {
            for (size_t i = 0; i < counts[part]; ++i) EXPECT_EQ(visits[part][i], 1) << part << ", " << i;
          }
        }
      }
    }
  })
      .join();
}

// All workers wait for each other in their first range, so that none could take one of a node that was done.
TEST(ThreadPool, ANodeBeginsWithItsOwnShareOfEveryPart) {
  std::thread([] {
    constexpr size_t kThreads = 8;
    ThreadPool pool(kThreads, made_up_nodes({2, 6}));  // so two workers, and six
    const std::vector<size_t> counts = {400, 4000};
    for (int repeat = 0; repeat < 20; ++repeat) {
      std::atomic<size_t> arrived = 0;
      std::vector<size_t> part_of(kThreads, 99), begin_of(kThreads), end_of(kThreads);
      pool.parallel_for_parts(counts, 1, [&](size_t part, size_t begin, size_t end, size_t worker) {
        if (part_of[worker] != 99) return;
        part_of[worker] = part;
        begin_of[worker] = begin;
        end_of[worker] = end;
        ++arrived;
        while (arrived < kThreads) std::this_thread::yield();
      });
      for (size_t worker = 0; worker < kThreads; ++worker) {
        const size_t border = counts.at(part_of[worker]) / 4;
        if (worker < 2) {
          EXPECT_LE(end_of[worker], border) << worker;
        } else {
          EXPECT_GE(begin_of[worker], border) << worker;
        }
      }
    }
  }).join();
}

}  // namespace
}  // namespace nibble
