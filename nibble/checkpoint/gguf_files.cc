#include "nibble/checkpoint/gguf_files.h"

#include <algorithm>
#include <charconv>

#include "nibble/base/text.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxParts = 99999;  // what the five digits of a name can count

constexpr std::string_view kSameSplit = "Take all parts from one download.";

// What a part says about itself.
struct Split {
  uint64_t index = 0;  // from 0; the name counts from 1
  uint64_t count = 1;
  uint64_t num_tensors = 0;  // of all parts together
};

Expected<uint64_t> required_integer(const GgufHeader& header, std::string_view key) {
  NIBBLE_TRY(const auto value, gguf_integer(header, key));
  if (!value) return fail(ErrorCode::kDataLoss, "is missing").at(key);
  return *value;
}

// A file without these keys is a whole one.
Expected<Split> read_split(const GgufHeader& header) {
  Split split;
  NIBBLE_TRY(const auto count, gguf_integer(header, "split.count"));
  // gguf-split --merge leaves a count of 0.
  if (!count || *count <= 1) return split;
  split.count = *count;
  if (split.count > kMaxParts) {
    return fail(ErrorCode::kDataLoss, "{} parts, but at most {} can be", split.count, kMaxParts)
        .at("split.count");
  }
  NIBBLE_TRY(split.index, required_integer(header, "split.no"));
  if (split.index >= split.count) {
    return fail(ErrorCode::kDataLoss, "{}, but parts are counted from 0 to {}", split.index, split.count - 1)
        .at("split.no");
  }
  NIBBLE_TRY(split.num_tensors, required_integer(header, "split.tensors.count"));
  return split;
}

constexpr std::string_view kSuffix = ".gguf";
constexpr std::string_view kBetweenWords = "-.";

// "m-Q4_K_M" of "m-Q4_K_M.gguf", and of "folder/m-Q4_K_M-00001-of-00003.gguf".
std::string_view stem_of(std::string_view path) {
  const std::string_view name = path.substr(path.rfind('/') + 1);  // npos + 1 is 0
  if (const auto part = parse_gguf_part_name(name)) return part->stem;
  return name.substr(0, name.size() - kSuffix.size());
}

// A whole word: "Q4_K" is not in "m-Q4_K_M".
bool has_word(std::string_view name, std::string_view word) {
  const std::string text = upper_case(stem_of(name));
  const std::string wanted = upper_case(word);
  const auto is_end = [&](size_t i) {
    return i >= text.size() || kBetweenWords.find(text[i]) != kBetweenWords.npos;
  };
  for (size_t at = text.find(wanted); at != text.npos; at = text.find(wanted, at + 1)) {
    if ((at == 0 || is_end(at - 1)) && is_end(at + wanted.size())) return true;
  }
  return false;
}

std::string part_suffix(uint64_t index, uint64_t count) {
  return fmt::format("-{:05}-of-{:05}.gguf", index + 1, count);
}

struct Part {
  std::shared_ptr<const MappedFile> file;
  GgufHeader header;
};

Expected<Part> open_part(const fs::path& path) {
  Part part;
  NIBBLE_TRY(part.file, MappedFile::open(path));
  NIBBLE_TRY(part.header, parse_gguf(part.file->bytes()));
  return part;
}

// Part `index` of the split that `known` is another part of.
Expected<Part> open_other_part(const fs::path& path, uint64_t index, const Split& known) {
  std::error_code error;
  if (!fs::exists(path, error)) {
    return fail(ErrorCode::kNotFound, "part {} of {} is missing", index + 1, known.count)
        .with_fix("Put all parts into one folder, under the names they were downloaded with.");
  }
  NIBBLE_TRY(Part part, open_part(path));
  NIBBLE_TRY(const Split split, read_split(part.header));
  if (split.index != index || split.count != known.count) {
    return fail(ErrorCode::kDataLoss, "says that it is part {} of {}, not {} of {}", split.index + 1,
                split.count, index + 1, known.count)
        .with_fix(kSameSplit);
  }
  if (split.num_tensors != known.num_tensors) {
    return fail(ErrorCode::kDataLoss, "{} tensors in all parts, but another part says {}", split.num_tensors,
                known.num_tensors)
        .at("split.tensors.count")
        .with_fix(kSameSplit);
  }
  return part;
}

Status add_part(Part part, GgufFiles& files) {
  const size_t index = files.parts.size();
  for (auto& [name, tensor] : part.header.tensors) {
    tensor.part = index;
    const auto [position, is_new] = files.header.tensors.emplace(name, std::move(tensor));
    if (!is_new) {
      return fail(ErrorCode::kDataLoss, "parts {} and {} both hold the tensor", position->second.part + 1,
                  index + 1)
          .at(name)
          .with_fix(kSameSplit);
    }
  }
  if (index == 0) files.header.metadata = std::move(part.header.metadata);
  files.parts.push_back(std::move(part.file));
  return {};
}

}  // namespace

std::optional<GgufPartName> parse_gguf_part_name(std::string_view name) {
  constexpr size_t kDigits = 5;
  const size_t suffix_length = part_suffix(0, 1).size();
  if (name.size() < suffix_length) return std::nullopt;
  const std::string_view suffix = name.substr(name.size() - suffix_length);
  GgufPartName part = {.stem = name.substr(0, name.size() - suffix_length)};
  std::from_chars(suffix.data() + 1, suffix.data() + 1 + kDigits, part.number);
  const char* const count = suffix.data() + suffix.size() - std::string_view(".gguf").size() - kDigits;
  std::from_chars(count, count + kDigits, part.count);
  const bool is_part = part.number >= 1 && part.number <= part.count;
  if (!is_part || suffix != part_suffix(part.number - 1, part.count)) return std::nullopt;
  return part;
}

std::vector<std::string> gguf_models(const std::vector<std::string>& names) {
  std::vector<std::string> models;
  for (const std::string& name : names) {
    const auto part = parse_gguf_part_name(name);
    const bool is_model = name.ends_with(kSuffix) && (!part || part->number == 1);
    if (is_model && !stem_of(name).starts_with("mmproj")) models.push_back(name);
  }
  return models;
}

std::string_view gguf_word(const std::vector<std::string>& models) {
  const std::string_view stem = stem_of(models.front());
  const std::string_view word = stem.substr(stem.find_last_of(kBetweenWords) + 1);  // npos + 1 is 0
  const auto has = [&](const std::string& name) { return has_word(name, word); };
  return std::count_if(models.begin(), models.end(), has) == 1 ? word : stem;
}

Expected<std::string> choose_gguf(const std::vector<std::string>& models, std::string_view quant) {
  std::vector<std::string> meant;
  for (const std::string& name : models) {
    if (quant.empty() || has_word(name, quant)) meant.push_back(name);
  }
  const auto is_below = [](const std::string& name) { return name.find('/') != name.npos; };
  if (!std::all_of(meant.begin(), meant.end(), is_below)) std::erase_if(meant, is_below);
  if (meant.size() == 1) return meant.front();
  if (models.empty()) return fail(ErrorCode::kNotFound, "there is no GGUF file");
  if (meant.empty()) {
    return fail(ErrorCode::kNotFound, "no GGUF file has \"{}\" in its name; there are {}", quant,
                some_of(models))
        .with_fix(fmt::format("Take a word that is in one, for example MODEL:{}", gguf_word(models)));
  }
  return fail(ErrorCode::kInvalidArgument, "{} GGUF files to choose from: {}", meant.size(), some_of(meant))
      .with_fix(fmt::format("Name one by a word of its name, for example MODEL:{}", gguf_word(meant)));
}

Expected<GgufFiles> open_gguf_files(const fs::path& path) {
  GgufFiles files;
  NIBBLE_TRY(Part opened, open_part(path));
  NIBBLE_TRY(const Split split, read_split(opened.header));
  if (split.count == 1) {
    NIBBLE_RETURN_IF_ERROR(add_part(std::move(opened), files));
    return files;
  }
  const std::string name = path.filename().string();
  const std::string suffix = part_suffix(split.index, split.count);
  if (!name.ends_with(suffix)) {
    return fail(ErrorCode::kInvalidArgument, "part {} of {}, but its name does not end in {}",
                split.index + 1, split.count, suffix)
        .with_fix("Give all parts the names they were downloaded with: the others are found by them.");
  }
  const std::string stem = name.substr(0, name.size() - suffix.size());
  for (uint64_t i = 0; i < split.count; ++i) {
    if (i == split.index) {
      NIBBLE_RETURN_IF_ERROR(add_part(std::move(opened), files));
      continue;
    }
    const std::string other = stem + part_suffix(i, split.count);
    NIBBLE_TRY(Part part, at(other, open_other_part(path.parent_path() / other, i, split)));
    NIBBLE_RETURN_IF_ERROR(add_part(std::move(part), files));
  }
  if (files.header.tensors.size() != split.num_tensors) {
    return fail(ErrorCode::kDataLoss, "{} tensors in all parts, but they hold {}", split.num_tensors,
                files.header.tensors.size())
        .at("split.tensors.count")
        .with_fix(kSameSplit);
  }
  return files;
}

}  // namespace nibble
