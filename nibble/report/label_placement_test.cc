#include "nibble/report/label_placement.h"

#include <gtest/gtest.h>

namespace nibble::report {
namespace {

const Box kArea{50, 20, 460, 280};

bool contains(const Box& outer, const Box& inner) {
  return inner.x >= outer.x && inner.y >= outer.y && inner.x + inner.width <= outer.x + outer.width &&
         inner.y + inner.height <= outer.y + outer.height;
}

TEST(LabelPlacement, ALabelAloneStandsRightOfItsPoint) {
  const auto placed = place_labels({{100, 100, 80, 15}}, {}, kArea);
  EXPECT_TRUE(placed[0].placed);
  EXPECT_FALSE(placed[0].needs_leader);
  EXPECT_GT(placed[0].box.x, 100);
  EXPECT_LT(placed[0].box.y, 100);
}

TEST(LabelPlacement, AtTheRightEdgeItStandsLeft) {
  EXPECT_LT(place_labels({{500, 100, 80, 15}}, {}, kArea)[0].box.x, 500 - 80);
}

TEST(LabelPlacement, TwelveLabelsOfOnePointDoNotOverlap) {
  const std::vector<LabelRequest> labels(12, LabelRequest{300, 150, 150, 15});
  const Box point{292, 142, 16, 16};
  const auto placed = place_labels(labels, {.points = {point}, .lines = {}}, kArea);
  for (size_t i = 0; i < placed.size(); ++i) {
    ASSERT_TRUE(placed[i].placed) << i;
    EXPECT_TRUE(contains(kArea, placed[i].box)) << i;
    EXPECT_FALSE(overlap(placed[i].box, point)) << i;
    for (size_t j = 0; j < i; ++j) EXPECT_FALSE(overlap(placed[i].box, placed[j].box)) << i << " and " << j;
  }
  EXPECT_TRUE(placed.back().needs_leader);
}

TEST(LabelPlacement, CoversALineRatherThanLeavingALabelOut) {
  const Box line{105, 20, 2, 280};
  EXPECT_FALSE(
      overlap(place_labels({{100, 100, 40, 15}}, {.points = {}, .lines = {line}}, kArea)[0].box, line));
  const auto crossed = place_labels({{100, 100, 450, 15}}, {.points = {}, .lines = {line}}, kArea);
  EXPECT_TRUE(crossed[0].placed);
  EXPECT_TRUE(overlap(crossed[0].box, line));
}

TEST(LabelPlacement, WhatHasNoRoomIsLeftOut) {
  const std::vector<LabelRequest> labels(3, LabelRequest{10, 10, 18, 15});
  const auto placed = place_labels(labels, {}, {0, 0, 20, 32});
  EXPECT_TRUE(placed[0].placed);
  EXPECT_FALSE(placed[2].placed);
  EXPECT_FALSE(place_labels({{10, 10, 500, 15}}, {}, kArea)[0].placed);
}

TEST(LabelPlacement, WidthGrowsWithTheText) {
  EXPECT_GT(text_width("GPTQ 4-bit g128", 12), text_width("GPTQ 4-bit", 12));
  EXPECT_GT(text_width("WWWW", 12), text_width("iiii", 12));
  EXPECT_GE(text_width("模型", 12), 24);
}

}  // namespace
}  // namespace nibble::report
