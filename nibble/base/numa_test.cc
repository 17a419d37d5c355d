#include "nibble/base/numa.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include "nibble/base/thread_pool.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr size_t kGiB = size_t{1} << 30;

// Two nodes of 64 GiB and four processors, and one that has only memory.
Machine two_nodes() {
  Machine machine;
  machine.cpus_allowed = {0, 1, 2, 3, 4, 5, 6, 7};
  machine.numa_nodes = {{0, {0, 1, 2, 3}, 64 * kGiB}, {1, {4, 5, 6, 7}, 64 * kGiB}, {2, {}, 512 * kGiB}};
  return machine;
}

std::vector<size_t> ids(const std::vector<NumaNode>& nodes) {
  std::vector<size_t> ids;
  for (const NumaNode& node : nodes) ids.push_back(node.id);
  return ids;
}

TEST(Numa, AModelThatFitsANodeStaysThere) {
  const auto nodes = nodes_for(two_nodes(), 4 * kGiB, 0);
  EXPECT_THAT(ids(nodes), ElementsAre(0));
  EXPECT_THAT(nodes.at(0).cpus, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(ids(nodes_for(two_nodes(), 4 * kGiB, 4)), ElementsAre(0));
}

TEST(Numa, WhatIsTooLargeOrAsksForMoreThreadsTakesAllNodes) {
  EXPECT_THAT(ids(nodes_for(two_nodes(), 60 * kGiB, 0)),
              ElementsAre(0, 1));  // 64 GiB are for other things, too
  EXPECT_THAT(ids(nodes_for(two_nodes(), 4 * kGiB, 5)), ElementsAre(0, 1));
  EXPECT_THAT(ids(nodes_for(two_nodes(), 60 * kGiB, 2)), ElementsAre(0, 1));
  EXPECT_THAT(ids(nodes_for(two_nodes(), 60 * kGiB, 1)), IsEmpty());
}

TEST(Numa, TheAffinityMaskDecidesAmongNodes) {
  Machine machine = two_nodes();
  machine.cpus_allowed = {3, 4, 5, 6};
  const auto nodes = nodes_for(machine, 4 * kGiB, 0);
  EXPECT_THAT(ids(nodes), ElementsAre(1));
  EXPECT_THAT(nodes.at(0).cpus, ElementsAre(4, 5, 6));
  EXPECT_THAT(nodes_for(machine, 60 * kGiB, 0).at(0).cpus, ElementsAre(3));
  machine.cpus_allowed = {4, 5};  // somebody has chosen already
  EXPECT_THAT(ids(nodes_for(machine, 4 * kGiB, 0)), IsEmpty());
}

TEST(Numa, OneNodeOrNoneIsLeftAlone) {
  Machine machine = two_nodes();
  machine.numa_nodes.resize(1);
  EXPECT_THAT(ids(nodes_for(machine, kGiB, 0)), IsEmpty());
  EXPECT_THAT(ids(nodes_for(Machine(), kGiB, 0)), IsEmpty());
}

TEST(Numa, ThreadsThatStartLaterStayToo) {
  // In a thread of its own: the mask is that of a thread and those it starts.
  std::thread([] {
    const size_t cpu = read_machine().cpus_allowed.at(0);
    ASSERT_TRUE(stay_on({0, {cpu}, 0}));
    EXPECT_EQ(available_threads(), 1u);
    std::thread([cpu] {
      cpu_set_t set;
      ASSERT_EQ(::sched_getaffinity(0, sizeof(set), &set), 0);
      EXPECT_EQ(CPU_COUNT(&set), 1);
      EXPECT_TRUE(CPU_ISSET(cpu, &set));
    }).join();
  }).join();
  EXPECT_FALSE(stay_on({0, {size_t{1} << 20}, 0}));
}

}  // namespace
}  // namespace nibble
