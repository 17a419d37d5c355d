#include "nibble/checkpoint/gguf_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/json.h"
#include "nibble/checkpoint/checkpoint.h"
#include "nibble/checkpoint/convert.h"
#include "nibble/checkpoint/gguf_builder.h"
#include "nibble/checkpoint/model_files.h"
#include "nibble/checkpoint/test_folder.h"

namespace nibble {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// The keys as gguf-split writes them.
GgufBuilder part_of(uint16_t index, uint16_t count, int32_t num_tensors) {
  GgufBuilder builder;
  builder.add("split.no", index).add("split.count", count).add("split.tensors.count", num_tensors);
  return builder;
}

// A llama without layers in three parts, of which the first has the metadata and no tensor.
struct SplitModel {
  SplitModel() {
    first = part_of(0, 3, 2);
    first.add("general.architecture", std::string("llama"));
    for (const auto& [key, value] : {std::pair("embedding_length", 4u), std::pair("feed_forward_length", 4u),
                                     std::pair("context_length", 16u), std::pair("block_count", 1u),
                                     std::pair("attention.head_count", 1u)}) {
      first.add<uint32_t>(std::string("llama.") + key, value);
    }
    first.add("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    second = part_of(1, 3, 2).add_floats("token_embd.weight", {4, 2}, {0, 1, 2, 3, 4, 5, 6, 7});
    third = part_of(2, 3, 2).add_floats("output_norm.weight", {4}, {8, 9, 10, 11});
  }

  // Writes all parts; the whole error of opening part `index`, or "accepted".
  std::string open(int index = 0) const {
    const GgufBuilder* const parts[] = {&first, &second, &third};
    for (int i = 0; i < 3; ++i) {
      if (i != missing) folder.add(name(i), parts[i]->build());
    }
    const auto files = open_gguf_files(folder / name(index));
    return files ? "accepted" : to_string(files.error());
  }
  static std::string name(int index) { return fmt::format("m-{:05}-of-00003.gguf", index + 1); }

  TestFolder folder;
  GgufBuilder first, second, third;
  int missing = -1;
};

TEST(GgufFiles, AnyPartOpensTheModel) {
  const SplitModel model;
  for (int index = 0; index < 3; ++index) {
    ASSERT_EQ(model.open(index), "accepted");
    const auto path = (model.folder / SplitModel::name(index)).string();
    const auto files = find_model(path);
    ASSERT_TRUE(files.has_value()) << to_string(files.error());
    EXPECT_EQ(parse_json(files->read_required("config.json").value())->at("vocab_size"), 2);
    const auto checkpoint = open_checkpoint(*files);
    ASSERT_TRUE(checkpoint.has_value()) << to_string(checkpoint.error());
    EXPECT_THAT(to_floats((*checkpoint)->tensor("model.embed_tokens.weight").value()).value(),
                ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
    EXPECT_THAT(to_floats((*checkpoint)->tensor("model.norm.weight").value()).value(),
                ElementsAre(8, 9, 10, 11));
    EXPECT_EQ((*checkpoint)->file_of("model.norm.weight"), SplitModel::name(2));
    EXPECT_EQ((*checkpoint)->file_bytes(),
              model.first.build().size() + model.second.build().size() + model.third.build().size());
  }
}

TEST(GgufFiles, AFolderOfOneModelIsThatModel) {
  const SplitModel model;
  model.open(0);
  model.folder.add("README.md", "words");
  model.folder.add("config.json", "{}");  // the file says more
  const auto files = find_model(model.folder.path().string());
  ASSERT_TRUE(files.has_value()) << to_string(files.error());
  EXPECT_EQ(files->gguf, model.folder / SplitModel::name(0));
  EXPECT_EQ(parse_json(files->read_required("config.json").value())->at("vocab_size"), 2);

  model.folder.add("other.gguf", "");
  const auto two = find_model(model.folder.path().string());
  ASSERT_FALSE(two.has_value());
  EXPECT_THAT(to_string(two.error()),
              AllOf(HasSubstr("2 GGUF files to choose from: m-00001-of-00003.gguf, other.gguf"),
                    HasSubstr("MODEL:m")));
  for (const char* const quant : {":m", ":M"}) {
    const auto one = find_model(model.folder.path().string() + quant);
    ASSERT_TRUE(one.has_value()) << to_string(one.error());
    EXPECT_EQ(one->gguf, model.folder / SplitModel::name(0));
  }
  const std::filesystem::path below = model.folder.path() / "sub";
  std::filesystem::create_directory(below);
  for (int i = 0; i < 3; ++i) {
    std::filesystem::copy(model.folder / SplitModel::name(i), below / ("deep" + SplitModel::name(i)));
  }
  EXPECT_EQ(find_model(model.folder.path().string() + ":deepm").value().gguf,
            below / ("deep" + SplitModel::name(0)));

  model.folder.add("model.safetensors", "");
  EXPECT_EQ(find_model(model.folder.path().string()).value().folder, model.folder.path());
}

TEST(GgufFiles, AWordOfItsNameChoosesAModel) {
  const auto models =
      gguf_models({"README.md", "m-UD-Q4_K_XL.gguf", "m.Q4_K_M.gguf", "m-q8_0-00001-of-00002.gguf",
                   "m-q8_0-00002-of-00002.gguf", "mmproj-F16.gguf"});
  EXPECT_THAT(models, ElementsAre("m-UD-Q4_K_XL.gguf", "m.Q4_K_M.gguf", "m-q8_0-00001-of-00002.gguf"));
  const auto chosen = [&](std::string_view quant) {
    const auto name = choose_gguf(models, quant);
    return name ? *name : to_string(name.error());
  };
  EXPECT_EQ(chosen("q4_k_m"), "m.Q4_K_M.gguf");
  EXPECT_EQ(chosen("Q8_0"), "m-q8_0-00001-of-00002.gguf");
  EXPECT_EQ(chosen("Q4_K_XL"), "m-UD-Q4_K_XL.gguf");
  EXPECT_EQ(chosen("UD-Q4_K_XL"), "m-UD-Q4_K_XL.gguf");
  EXPECT_EQ(chosen("Q4_K"),
            "no GGUF file has \"Q4_K\" in its name; there are m-UD-Q4_K_XL.gguf, m.Q4_K_M.gguf, "
            "m-q8_0-00001-of-00002.gguf\n  Take a word that is in one, for example MODEL:Q4_K_XL");
  EXPECT_THAT(chosen("m"), HasSubstr("3 GGUF files to choose from"));
  EXPECT_THAT(chosen(""), HasSubstr("for example MODEL:Q4_K_XL"));
  EXPECT_THAT(choose_gguf({"a-q4.gguf", "b-q4.gguf"}, "q4").error().fix, HasSubstr("MODEL:a-q4"));
  EXPECT_EQ(choose_gguf({}, "q4").error().code, ErrorCode::kNotFound);
}

TEST(GgufFiles, AFileOfOnePartNeedsNoSpecialName) {
  const TestFolder folder;
  for (const uint16_t count : {uint16_t{0}, uint16_t{1}}) {
    GgufBuilder builder = part_of(0, count, 1);
    const auto path = folder.add("any.gguf", builder.add_floats("x", {1}, {1}).build());
    const auto files = open_gguf_files(path);
    ASSERT_TRUE(files.has_value()) << to_string(files.error());
    EXPECT_EQ(files->parts.size(), 1u);
  }
}

TEST(GgufFiles, AMissingPartIsNamed) {
  for (const auto& [missing, opened] : {std::pair(0, 1), std::pair(1, 0), std::pair(2, 0)}) {
    SplitModel model;
    model.missing = missing;
    EXPECT_THAT(model.open(opened), AllOf(HasSubstr(SplitModel::name(missing)),
                                          HasSubstr(fmt::format("part {} of 3 is missing", missing + 1))));
  }
}

TEST(GgufFiles, ARenamedPartIsRefused) {
  const TestFolder folder;
  const auto path = folder.add("m.gguf", part_of(1, 3, 2).build());
  const auto files = open_gguf_files(path);
  ASSERT_FALSE(files.has_value());
  EXPECT_THAT(to_string(files.error()), HasSubstr("does not end in -00002-of-00003.gguf"));
}

TEST(GgufFiles, PartsThatDoNotBelongTogetherAreRefused) {
  SplitModel swapped;
  std::swap(swapped.second, swapped.third);
  EXPECT_THAT(swapped.open(),
              AllOf(HasSubstr(SplitModel::name(1)), HasSubstr("says that it is part 3 of 3, not 2 of 3")));
  SplitModel whole;
  whole.third = GgufBuilder().add_floats("output_norm.weight", {4}, {8, 9, 10, 11});
  EXPECT_THAT(whole.open(), HasSubstr("says that it is part 1 of 1, not 3 of 3"));
  SplitModel other;
  other.third = part_of(2, 3, 7).add_floats("output_norm.weight", {4}, {8, 9, 10, 11});
  EXPECT_THAT(other.open(),
              HasSubstr("split.tensors.count: 7 tensors in all parts, but another part says 2"));
}

TEST(GgufFiles, TensorsAreCounted) {
  SplitModel twice;
  twice.third = part_of(2, 3, 2).add_floats("token_embd.weight", {4, 2}, std::vector<float>(8));
  EXPECT_THAT(twice.open(), HasSubstr("token_embd.weight: parts 2 and 3 both hold the tensor"));
  SplitModel fewer;
  fewer.third = part_of(2, 3, 2);
  EXPECT_THAT(fewer.open(), HasSubstr("split.tensors.count: 2 tensors in all parts, but they hold 1"));
}

TEST(GgufFiles, BrokenKeysAreRefused) {
  const auto refusal = [](const GgufBuilder& builder) {
    const TestFolder folder;
    const auto files = open_gguf_files(folder.add("m-00001-of-00002.gguf", builder.build()));
    return files ? "accepted" : to_string(files.error());
  };
  EXPECT_THAT(refusal(part_of(2, 2, 1)), HasSubstr("split.no: 2, but parts are counted from 0 to 1"));
  EXPECT_THAT(refusal(GgufBuilder().add<uint16_t>("split.count", 2)), HasSubstr("split.no: is missing"));
  EXPECT_THAT(refusal(GgufBuilder().add<uint16_t>("split.count", 2).add<uint16_t>("split.no", 0)),
              HasSubstr("split.tensors.count: is missing"));
  EXPECT_THAT(refusal(GgufBuilder().add<uint64_t>("split.count", uint64_t{1} << 62)),
              HasSubstr("split.count: 4611686018427387904 parts, but at most 99999"));
  EXPECT_THAT(refusal(GgufBuilder().add<std::string>("split.count", "2")),
              HasSubstr("split.count: a string where an integer is expected"));
  EXPECT_THAT(refusal(part_of(0, 2, -1)), HasSubstr("split.tensors.count: -1 is negative"));
}

TEST(GgufFiles, ADamagedPartIsNamed) {
  SplitModel model;
  model.third = part_of(2, 3, 2).add_tensor("output_norm.weight", 12, {100}, std::string(144, '\0'));
  EXPECT_THAT(model.open(), AllOf(HasSubstr(SplitModel::name(2) + ": output_norm.weight"),
                                  HasSubstr("rows of 100 do not fill blocks of 256 (Q4_K)")));
}

TEST(GgufPartName, IsThatOfGgufSplit) {
  const auto part = parse_gguf_part_name("Q4/m-x-00002-of-00013.gguf");
  ASSERT_TRUE(part);
  EXPECT_EQ(part->stem, "Q4/m-x");
  EXPECT_EQ(part->number, 2u);
  EXPECT_EQ(part->count, 13u);
  for (const char* const name :
       {"m.gguf", "m-00000-of-00003.gguf", "m-00004-of-00003.gguf", "m-1-of-3.gguf", "m-0000a-of-00003.gguf",
        "m-00001-of-00003.ggud", "m-00001_of-00003.gguf", "00001-of-00003.gguf", ".gguf", ""}) {
    EXPECT_FALSE(parse_gguf_part_name(name)) << name;
  }
}

}  // namespace
}  // namespace nibble
