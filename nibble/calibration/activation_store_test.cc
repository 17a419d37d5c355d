#include "nibble/calibration/activation_store.h"

#include <fstream>

#include <gtest/gtest.h>

#include "nibble/base/float16.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

constexpr size_t kTokens = 37;
constexpr size_t kWidth = 19;

std::vector<float> some_values(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = 0.37f * static_cast<float>(i % 101) - 11.1f;
  return values;
}

struct Kind {
  DType dtype;
  bool in_file;
};

class ActivationStores : public testing::TestWithParam<Kind> {
 protected:
  ActivationStore make(size_t tokens = kTokens) {
    const ActivationShape shape = {tokens, kWidth, GetParam().dtype};
    if (!GetParam().in_file) return ActivationStore::in_memory(shape);
    auto store = ActivationStore::in_file(shape, folder_.path());
    EXPECT_TRUE(store) << to_string(store.error());
    return *std::move(store);
  }
  std::vector<float> read(const ActivationStore& store, size_t first, size_t count) {
    std::vector<float> values(count * kWidth, -1.f);
    EXPECT_TRUE(store.read(first, {values.data(), count, kWidth}, pool_));
    return values;
  }
  void write(ActivationStore& store, size_t first, const std::vector<float>& values) {
    EXPECT_TRUE(store.write(first, {values.data(), values.size() / kWidth, kWidth}, pool_));
  }
  std::vector<float> as_stored(std::vector<float> values) {
    if (GetParam().dtype == DType::kBF16) {
      for (float& v : values) v = bf16_to_float(float_to_bf16(v));
    }
    return values;
  }

  TemporaryFolder folder_;
  ThreadPool pool_{2};
};

INSTANTIATE_TEST_SUITE_P(Kinds, ActivationStores,
                         testing::Values(Kind{DType::kF32, false}, Kind{DType::kF32, true},
                                         Kind{DType::kBF16, false}, Kind{DType::kBF16, true}),
                         [](const auto& test) {
                           return std::string(test.param.dtype == DType::kF32 ? "F32" : "BF16") +
                                  (test.param.in_file ? "InFile" : "InMemory");
                         });

TEST_P(ActivationStores, AreZeroAtFirst) {
  const ActivationStore store = make();
  EXPECT_EQ(read(store, 0, kTokens), std::vector<float>(kTokens * kWidth, 0.f));
}

TEST_P(ActivationStores, GiveBackWhatWasWrittenRoundedToTheirType) {
  ActivationStore store = make();
  const std::vector<float> values = some_values(kTokens * kWidth);
  write(store, 0, values);
  EXPECT_EQ(read(store, 0, kTokens), as_stored(values));
  const std::vector<float> rows(values.begin(), values.begin() + 5 * kWidth);
  write(store, 30, rows);
  EXPECT_EQ(read(store, 30, 5), as_stored(rows));
  EXPECT_EQ(read(store, 29, 1), as_stored({values.begin() + 29 * kWidth, values.begin() + 30 * kWidth}));
}

TEST_P(ActivationStores, GoOnFromASavedFile) {
  ActivationStore store = make();
  write(store, 0, some_values(kTokens * kWidth));
  const std::filesystem::path path = folder_.path() / "saved";
  ASSERT_TRUE(store.save(path));
  ActivationStore other = make();
  ASSERT_TRUE(other.load(path));
  EXPECT_EQ(read(other, 0, kTokens), read(store, 0, kTokens));
}

TEST_P(ActivationStores, RefuseAFileOfAnotherSize) {
  ActivationStore store = make();
  const std::filesystem::path path = folder_.path() / "saved";
  ASSERT_TRUE(store.save(path));
  ActivationStore longer = make(kTokens + 1);
  const Status loaded = longer.load(path);
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, ErrorCode::kDataLoss);
  EXPECT_FALSE(store.load(folder_.path() / "missing"));
}

TEST_P(ActivationStores, MayHoldNothing) {
  ActivationStore store = make(0);
  EXPECT_TRUE(store.empty());
  write(store, 0, {});
  EXPECT_TRUE(read(store, 0, 0).empty());
}

TEST(ActivationStoreFile, LeavesNoFileBehind) {
  const TemporaryFolder folder;
  const auto store = ActivationStore::in_file({4, 4, DType::kBF16}, folder.path());
  ASSERT_TRUE(store);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ActivationStoreFile, NeedsAFolderThatIsThere) {
  const auto store = ActivationStore::in_file({4, 4, DType::kBF16}, "/no/such/folder");
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace nibble::test
