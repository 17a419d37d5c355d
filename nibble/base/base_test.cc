// Small promises of base/: files, tensors, arena, errors.

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "nibble/base/arena.h"
#include "nibble/base/atomic_file.h"
#include "nibble/base/dtype.h"
#include "nibble/base/mapped_file.h"
#include "nibble/base/memory.h"
#include "nibble/base/printable.h"
#include "nibble/base/shrunk_file.h"
#include "nibble/base/tensor.h"
#include "tests/support/fixtures.h"

namespace nibble {
namespace {

TEST(Error, TheWayUpPutsPlacesInFront) {
  const auto inner = []() -> Status {
    return fail(ErrorCode::kDataLoss, "{} bytes", 3).at("lm_head.weight").with_fix("Fetch it again.");
  };
  const Status outer = at("model.safetensors", inner());
  ASSERT_FALSE(outer.has_value());
  EXPECT_EQ(to_string(outer.error()), "model.safetensors: lm_head.weight: 3 bytes\n  Fetch it again.");
}

TEST(Error, WhatAFileSaysCannotCommandTheTerminal) {
  const Error error{ErrorCode::kDataLoss, "unknown dtype \"\x1b[2J\n\u009bh\x7f\"", "a\rb", "Fetch\tit."};
  EXPECT_EQ(to_string(error), "a\\x0db: unknown dtype \"\\x1b[2J\\x0a\\x9bh\\x7f\"\n  Fetch\\x09it.");
}

TEST(Printable, LinesOfAListStay) { EXPECT_EQ(printable("changed:\n  a\n  b\n"), "changed:\n  a\n  b\\x0a"); }

TEST(Printable, BytesThatAreNoTextAreNumbers) {
  EXPECT_EQ(printable("n\xff\xfe!"), "n\\xff\\xfe!");
  EXPECT_EQ(printable("\xe4\xbd"), "\\xe4\\xbd") << "the start of a character";
  EXPECT_EQ(printable("\xc0\xaf \xed\xa0\x80"), "\\xc0\\xaf \\xed\\xa0\\x80") << "overlong, surrogate";
  EXPECT_EQ(printable("caf\u00e9 \u4f60 \U0001f600"), "caf\u00e9 \u4f60 \U0001f600");
}

TEST(Printable, LongTextsLoseTheirMiddle) {
  EXPECT_EQ(printable("abcdefghij", 10), "abcdefghij");
  EXPECT_EQ(printable("abcdefghijk", 4), "ab[... 7 bytes ...]jk");
  EXPECT_EQ(printable("\u4f60\u4f60\u4f60", 4), "[... 9 bytes ...]") << "no half characters";
  EXPECT_EQ(printable("a\x7f\x7f\x7f\x7f\x7f z", 12), "a\\x7f[... 3 bytes ...]\\x7f z")
      << "as they are shown";
  EXPECT_EQ(printable("\x7f\x7f\x7f", 12), "\\x7f\\x7f\\x7f");
}

TEST(MappedFile, AFileThatShrinksIsAnErrorNotACrash) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "model.safetensors";
  ASSERT_TRUE(write_file(path, std::string(20000, 'x')).has_value());
  const auto file = MappedFile::open(path).value();
  EXPECT_TRUE(file->check_size().has_value());
  std::filesystem::resize_file(path, 30000);
  EXPECT_TRUE(file->check_size().has_value()) << "what was mapped is still there";
  std::filesystem::resize_file(path, 100);
  const Status shrunk = file->check_size();
  ASSERT_FALSE(shrunk.has_value());
  EXPECT_EQ(shrunk.error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(shrunk.error().what, "the file had 20000 bytes when it was opened, and has 100 now");
  // Whoever reads on all the same: the program's handler.
  const auto read_on = [&file] {
    install_shrunk_file_handler();
    std::exit(static_cast<int>(file->bytes()[19999]));
  };
  EXPECT_EXIT(read_on(), testing::ExitedWithCode(1),
              "^error: .*model.safetensors: the file has become shorter while it was read\n  Another");
}

TEST(DType, BothSpellingsGoBothWays) {
  EXPECT_EQ(dtype_from_name("BF16"), DType::kBF16);
  EXPECT_EQ(dtype_from_torch_name("torch.float16"), DType::kF16);
  EXPECT_EQ(torch_dtype_name(DType::kI8), "int8");
  EXPECT_FALSE(dtype_from_name("F17").has_value());
}

TEST(AtomicFile, NothingChangesWithoutCommit) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "file";
  ASSERT_TRUE(write_file(path, "old").has_value());
  {
    auto file = AtomicFile::create(path);
    ASSERT_TRUE(file.has_value());
    ASSERT_TRUE(file->write(std::string_view("new")).has_value());
  }
  EXPECT_EQ(read_text_file(path).value(), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
  ASSERT_TRUE(write_file(path, "new").has_value());
  EXPECT_EQ(read_text_file(path).value(), "new");
}

TEST(AtomicFile, WhoMayReadAFileStaysAsItIs) {
  namespace fs = std::filesystem;
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "file";
  ASSERT_TRUE(write_file(path, "new").has_value());
  std::ofstream(folder.path() / "other") << "made as any program makes files";
  EXPECT_EQ(fs::status(path).permissions(), fs::status(folder.path() / "other").permissions());
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  ASSERT_TRUE(write_file(path, "newer").has_value());
  EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST(AtomicFile, AMapOfTheOldFileSurvives) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "file";
  ASSERT_TRUE(write_file(path, "old").has_value());
  const auto map = MappedFile::open(path).value();
  ASSERT_TRUE(write_file(path, "newer").has_value());
  EXPECT_EQ(std::memcmp(map->bytes().data(), "old", 3), 0);
}

TEST(MappedFile, MissingFilesAndFoldersAreNamed) {
  EXPECT_EQ(MappedFile::open("/nowhere/file").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(MappedFile::open("/nowhere/file").error().where, "/nowhere/file");
  EXPECT_EQ(MappedFile::open("/tmp").error().code, ErrorCode::kInvalidArgument);
}

TEST(Tensor, SizesAreCheckedForOverflow) {
  EXPECT_EQ(num_elements({}), 1u);
  EXPECT_EQ(num_elements({4, 0, 8}), 0u);
  EXPECT_FALSE(num_elements({size_t{1} << 32, size_t{1} << 32, 2}).has_value());
  EXPECT_FALSE(num_bytes({DType::kF32, {size_t{1} << 62}}).has_value());
  EXPECT_EQ(num_bytes({DType::kF4, {2, 3}}), 3u);
  EXPECT_FALSE(num_bytes({DType::kF4, {3}}).has_value());
}

TEST(Tensor, ConversionRoundsLikePyTorch) {
  const Tensor tensor = Tensor::of<float>(DType::kF32, {3}, {1.f, 65520.f, -0.1f});
  const auto half = convert_tensor(tensor, DType::kF16).value();
  EXPECT_EQ(copy_elements<uint16_t>(half), (std::vector<uint16_t>{0x3C00, 0x7C00, 0xAE66}));
  EXPECT_FALSE(to_floats(Tensor::of<int32_t>(DType::kI32, {1}, {1})).has_value());
}

TEST(Arena, TheSecondRoundAllocatesNothing) {
  Arena arena;
  size_t allocations = 0;
  for (int round = 0; round < 4; ++round) {
    const Arena::Scope outer(arena);
    float* const a = arena.take<float>(300'000);
    a[299'999] = 1.f;
    {
      const Arena::Scope inner(arena);
      arena.take<float>(1'000'000)[999'999] = 2.f;
    }
    float* const b = arena.take<float>(10);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b) % 64, 0u);
    b[9] = 3.f;
    EXPECT_EQ(a[299'999], 1.f);
    if (round == 1) allocations = arena.num_allocations();
  }
  EXPECT_EQ(arena.num_allocations(), allocations);
}

TEST(Memory, BytesReadLikeTheHub) {
  EXPECT_EQ(human_bytes(999), "999 bytes");
  EXPECT_EQ(human_bytes(540'000'000), "540 MB");
  EXPECT_EQ(human_bytes(1'340'000'000), "1.3 GB");
  EXPECT_GT(peak_memory_bytes(), 0u);
}

}  // namespace
}  // namespace nibble
