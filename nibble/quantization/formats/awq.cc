#include "nibble/quantization/formats/awq.h"

#include <algorithm>
#include <cstring>

#include "nibble/quantization/formats/awq_marlin.h"
#include "nibble/quantization/formats/bit_spread.h"

namespace nibble {
namespace {

constexpr size_t kPerWord = 8;         // codes in 32 bits
constexpr float kSymmetricZero = 8.f;  // of files that store none

// Nibble n of a gemm word belongs to output kOrder[n] of its eight: the codes 0..7 are 0x75316420.
constexpr size_t kOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};

const std::vector<std::string> kAwqSuffixes = {"qweight", "qzeros", "scaled_zeros", "scales"};

struct LayoutRow {
  AwqLayout layout;
  std::string_view name;
  std::vector<std::string_view> versions;  // that are stored so
};

const std::vector<LayoutRow>& layout_rows() {
  static const std::vector<LayoutRow> kRows = {
      {AwqLayout::kGemm, "gemm", {"gemm", "exllama", "ipex"}},
      {AwqLayout::kGemv, "gemv", {"gemv"}},
      {AwqLayout::kFast, "gemv_fast", {"gemv_fast", "llm-awq"}},
      {AwqLayout::kMarlin, "marlin", {"marlin"}},
  };
  return kRows;
}

const LayoutRow& row_of(AwqLayout layout) { return layout_rows()[static_cast<size_t>(layout)]; }

const LayoutRow* row_of_version(std::string_view version) {
  for (const LayoutRow& row : layout_rows()) {
    if (std::find(row.versions.begin(), row.versions.end(), version) != row.versions.end()) return &row;
  }
  return nullptr;
}

struct AwqModule {
  const LayoutRow* row = nullptr;
  std::string_view zeros;  // "qzeros", "scaled_zeros", or empty where none are stored
  size_t out_features = 0;
  size_t in_features = 0;
  size_t num_groups = 0;
  size_t group_size = 0;
  size_t padded_groups = 0;  // gemv and gemv_fast: groups that scales have room for
  DType scale_dtype = DType::kF16;
};

// Which layout the tensors have, by type and shape; what the config says only where they fit none.
Expected<AwqLayout> detect(const ModuleTensors& tensors, const TensorInfo& qweight, const TensorInfo& scales,
                           const AwqConfig& config) {
  const LayoutRow* const said = row_of_version(config.version);
  if (said == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "version \"{}\" is unknown", config.version)
        .at("quantization_config")
        .with_fix("AWQ versions are gemm, gemv, gemv_fast, llm-awq, exllama, ipex and marlin.");
  }
  AwqLayout found = said->layout;
  if (qweight.dtype == DType::kI16 || qweight.dtype == DType::kU16) {
    found = AwqLayout::kFast;
  } else if (said->layout == AwqLayout::kGemv && qweight.shape[0] == scales.shape[0]) {
    // Padded groups of a small gemv weight can look like outputs of gemm: [32, 4] beside [32, 32].
    found = AwqLayout::kGemv;
  } else if (qweight.shape[1] == scales.shape[1] / kPerWord && scales.shape[1] % kPerWord == 0) {
    found = AwqLayout::kGemm;
  } else if (qweight.shape[0] == scales.shape[0]) {
    found = AwqLayout::kGemv;
  } else if (qweight.shape[1] % 2 == 0 && qweight.shape[1] / 2 == scales.shape[1]) {
    found = AwqLayout::kMarlin;
  } else if (qweight.shape[1] == scales.shape[1] && tensors.has("qzeros")) {
    return fail(ErrorCode::kDataLoss,
                "shape {} beside scales {} is the layout of GPTQ, but quant_method is awq",
                shape_name(qweight.shape), shape_name(scales.shape))
        .at(tensors.where("qweight"))
        .with_fix(kFetchBothAgain);
  } else if (said->layout == AwqLayout::kFast) {
    return fail(ErrorCode::kDataLoss, "elements are {}, but version \"{}\" stores I16",
                dtype_name(qweight.dtype), config.version)
        .at(tensors.where("qweight"))
        .with_fix(kFetchBothAgain);
  }
  if (found != said->layout) {
    return fail(ErrorCode::kDataLoss,
                "{} {} beside scales {} is the layout of version {}, but config.json says {}",
                dtype_name(qweight.dtype), shape_name(qweight.shape), shape_name(scales.shape),
                row_of(found).name, config.version)
        .at(tensors.where("qweight"))
        .with_fix(fmt::format("If the model is right otherwise, set version to \"{}\" in config.json.",
                              row_of(found).name));
  }
  return found;
}

Status set_sides(const ModuleTensors& tensors, const Shape& qweight, const std::optional<LinearShape>& shape,
                 AwqModule& layout) {
  size_t factor[2] = {1, 1};  // features per size of qweight: outputs, inputs
  size_t sides[2] = {qweight[0], qweight[1]};
  switch (layout.row->layout) {
    case AwqLayout::kGemm:
      std::swap(sides[0], sides[1]);
      factor[0] = kPerWord;
      break;
    case AwqLayout::kGemv:
      factor[1] = kPerWord;
      break;
    case AwqLayout::kFast:
      factor[0] = 4;
      break;
    case AwqLayout::kMarlin:
      std::swap(sides[0], sides[1]);
      sides[0] /= 2;
      factor[1] = kMarlinInputs;
      break;
  }
  if (__builtin_mul_overflow(sides[0], factor[0], &layout.out_features) ||
      __builtin_mul_overflow(sides[1], factor[1], &layout.in_features) || layout.out_features == 0 ||
      layout.in_features == 0) {
    return fail(ErrorCode::kDataLoss, "shape {} is not the shape of a weight", shape_name(qweight))
        .at(tensors.where("qweight"));
  }
  if (shape && (shape->out_features != layout.out_features || shape->in_features != layout.in_features)) {
    return fail(ErrorCode::kDataLoss,
                "shape {} holds {} outputs and {} inputs, but config.json asks for {} and {}",
                shape_name(qweight), layout.out_features, layout.in_features, shape->out_features,
                shape->in_features)
        .at(tensors.where("qweight"))
        .with_fix("The file belongs to another model: check the folder.");
  }
  const size_t inputs = layout.row->layout == AwqLayout::kFast ? 64 : 1;
  const size_t outputs = layout.row->layout == AwqLayout::kMarlin ? kMarlinOutputs : 1;
  if (layout.in_features % inputs != 0 || layout.out_features % outputs != 0) {
    return fail(ErrorCode::kDataLoss, "{} outputs and {} inputs, but {} needs multiples of {} and {}",
                layout.out_features, layout.in_features, layout.row->name, outputs, inputs)
        .at(tensors.where("qweight"));
  }
  return {};
}

Status set_groups(const ModuleTensors& tensors, int64_t group_size, AwqModule& layout) {
  if (group_size != -1 && group_size <= 0) {
    return fail(ErrorCode::kInvalidArgument, "group_size is {}, but must be -1 or positive", group_size)
        .at("quantization_config");
  }
  layout.group_size = group_size == -1 ? layout.in_features : static_cast<size_t>(group_size);
  if (layout.in_features % layout.group_size != 0) {
    return fail(ErrorCode::kDataLoss, "group_size {} (config.json) does not divide the {} inputs",
                layout.group_size, layout.in_features)
        .at(tensors.module())
        .with_fix(kFetchBothAgain);
  }
  layout.num_groups = layout.in_features / layout.group_size;
  return {};
}

// Shapes of scales and zero points; gemv and gemv_fast pad the groups to whole words for their
// kernels, by how much does not matter to a reader.
Status check_groups(const ModuleTensors& tensors, const TensorInfo& scales, AwqModule& layout) {
  const std::string why = fmt::format("{} inputs with group_size {} (config.json) and {} outputs",
                                      layout.in_features, layout.group_size, layout.out_features);
  const bool gemv = layout.row->layout == AwqLayout::kGemv;
  const bool padded = gemv || layout.row->layout == AwqLayout::kFast;
  layout.padded_groups = padded ? scales.shape[gemv ? 1 : 0] : layout.num_groups;
  const size_t most = ceil_div(layout.num_groups, 4 * kPerWord) * 4 * kPerWord;
  if (padded && (layout.padded_groups < layout.num_groups || layout.padded_groups > most ||
                 layout.padded_groups % kPerWord != 0)) {
    return fail(ErrorCode::kDataLoss, "shape {} has room for {} groups, but {} make {} of them",
                shape_name(scales.shape), layout.padded_groups, why, layout.num_groups)
        .at(tensors.where("scales"))
        .with_fix(kFetchBothAgain);
  }
  const Shape by_group = {layout.padded_groups, layout.out_features};
  const Shape by_output = {layout.out_features, layout.padded_groups};
  NIBBLE_RETURN_IF_ERROR(tensors.require_shape("scales", gemv ? by_output : by_group, why));
  if (layout.zeros.empty()) return {};
  const Shape zeros = gemv     ? Shape{layout.out_features, layout.padded_groups / kPerWord}
                      : padded ? by_group
                               : Shape{layout.num_groups, layout.out_features / kPerWord};
  return tensors.require_shape(layout.zeros, zeros, why);
}

Status find_zeros(const ModuleTensors& tensors, const AwqConfig& config, AwqModule& layout) {
  const bool fast = layout.row->layout == AwqLayout::kFast;
  if (tensors.has("qzeros") && tensors.has("scaled_zeros")) {
    return fail(ErrorCode::kDataLoss, "qzeros and scaled_zeros are both there, but only one can be")
        .at(tensors.module())
        .with_fix(kFetchBothAgain);
  }
  if (fast && tensors.has("scaled_zeros")) layout.zeros = "scaled_zeros";
  if (tensors.has("qzeros")) layout.zeros = "qzeros";
  // Marlin's zero points are always 8; AutoAWQ 0.2.9 stores none, and any others mean nothing.
  if (layout.row->layout == AwqLayout::kMarlin) {
    if (config.zero_point) {
      return fail(ErrorCode::kDataLoss,
                  "version marlin stores no zero points, but zero_point is true in config.json")
          .at(tensors.where("qweight"))
          .with_fix(kFetchBothAgain);
    }
    layout.zeros = {};
    return {};
  }
  if (layout.zeros.empty() && (config.zero_point || fast)) {
    return fail(ErrorCode::kDataLoss, "the tensor is missing, but {}",
                fast ? "this layout needs it" : "zero_point is true in config.json")
        .at(tensors.where(config.version == "llm-awq" ? "scaled_zeros" : "qzeros"))
        .with_fix("The checkpoint is incomplete: fetch it again.");
  }
  if (layout.zeros.empty()) return {};
  if (fast) {
    NIBBLE_RETURN_IF_ERROR(tensors.require(layout.zeros, {layout.scale_dtype}, 2));
  } else {
    NIBBLE_RETURN_IF_ERROR(tensors.require(layout.zeros, {DType::kI32, DType::kU32}, 2));
  }
  return {};
}

Expected<AwqModule> read_layout(const ModuleTensors& tensors, const AwqConfig& config,
                                const std::optional<LinearShape>& shape) {
  if (config.bits != 4) {
    return fail(ErrorCode::kInvalidArgument, "bits is {}, but AWQ checkpoints have 4", config.bits)
        .at("quantization_config");
  }
  if (tensors.has("g_idx")) {
    return fail(ErrorCode::kDataLoss,
                "AWQ has no such tensor: the module is stored as GPTQ, but quant_method is awq")
        .at(tensors.where("g_idx"))
        .with_fix(kFetchBothAgain);
  }
  NIBBLE_TRY(const TensorInfo qweight,
             tensors.require("qweight", {DType::kI32, DType::kU32, DType::kI16, DType::kU16}, 2));
  NIBBLE_TRY(const TensorInfo scales, tensors.require("scales", scale_dtypes(), 2));
  NIBBLE_TRY(const AwqLayout kind, detect(tensors, qweight, scales, config));
  AwqModule layout;
  layout.row = &row_of(kind);
  layout.scale_dtype = scales.dtype;
  NIBBLE_RETURN_IF_ERROR(set_sides(tensors, qweight.shape, shape, layout));
  NIBBLE_RETURN_IF_ERROR(find_zeros(tensors, config, layout));
  NIBBLE_RETURN_IF_ERROR(set_groups(tensors, config.group_size, layout));
  NIBBLE_RETURN_IF_ERROR(check_groups(tensors, scales, layout));
  return layout;
}

// [outputs, padded groups] -> [groups, outputs]
std::vector<float> transposed(const std::vector<float>& by_output, const AwqModule& layout) {
  std::vector<float> by_group(layout.num_groups * layout.out_features);
  for (size_t o = 0; o < layout.out_features; ++o) {
    for (size_t g = 0; g < layout.num_groups; ++g) {
      by_group[g * layout.out_features + o] = by_output[o * layout.padded_groups + g];
    }
  }
  return by_group;
}

Expected<std::vector<float>> read_scales(const ModuleTensors& tensors, const AwqModule& layout) {
  NIBBLE_TRY(std::vector<float> scales, tensors.load_finite("scales"));
  switch (layout.row->layout) {
    case AwqLayout::kGemm:
      break;
    case AwqLayout::kGemv:
      return transposed(scales, layout);
    case AwqLayout::kFast:
      scales.resize(layout.num_groups * layout.out_features);
      break;
    case AwqLayout::kMarlin:
      return unpermute_marlin_scales(scales, layout.num_groups, layout.out_features);
  }
  return scales;
}

// Zero points [num_groups, out_features]; of gemv_fast and llm-awq: -(scale * zero).
Expected<std::vector<float>> read_zeros(const ModuleTensors& tensors, const AwqModule& layout) {
  const size_t count = layout.num_groups * layout.out_features;
  if (layout.zeros.empty()) return std::vector<float>(count, kSymmetricZero);
  if (layout.row->layout == AwqLayout::kFast) {
    NIBBLE_TRY(std::vector<float> zeros, tensors.load_finite(layout.zeros));
    zeros.resize(count);
    return zeros;
  }
  NIBBLE_TRY(const std::vector<uint32_t> words, tensors.load_words(layout.zeros));
  const bool gemm = layout.row->layout == AwqLayout::kGemm;
  std::vector<float> zeros(words.size() * kPerWord);
  for (size_t w = 0; w < words.size(); ++w) {
    for (size_t n = 0; n < kPerWord; ++n) {
      zeros[w * kPerWord + (gemm ? kOrder[n] : n)] = static_cast<float>(words[w] >> (4 * n) & 0xF);
    }
  }
  return gemm ? zeros : transposed(zeros, layout);
}

Expected<std::vector<uint8_t>> read_codes(const ModuleTensors& tensors, const AwqModule& layout) {
  NIBBLE_TRY(const Tensor tensor, tensors.load("qweight"));
  std::vector<uint8_t> codes(layout.out_features * layout.in_features);
  if (layout.row->layout == AwqLayout::kFast) {
    const auto words = copy_elements<uint16_t>(tensor);
    unpack_awq_fast(words.data(), layout.out_features, layout.in_features, codes.data());
    return codes;
  }
  const auto words = copy_elements<uint32_t>(tensor);
  const auto unpack = layout.row->layout == AwqLayout::kGemm   ? unpack_awq_gemm
                      : layout.row->layout == AwqLayout::kGemv ? unpack_awq_gemv
                                                               : unpack_awq_marlin;
  unpack(words.data(), layout.out_features, layout.in_features, codes.data());
  return codes;
}

// rows[r][c] nibble n <-> rows[n][c] nibble r, as transpose_8x8() does with bytes.
constexpr size_t kTurned = 16;  // words side by side
void transpose_nibbles(uint32_t (&rows)[kPerWord][kTurned]) {
  constexpr struct {
    size_t distance;
    uint32_t low;
  } kSteps[] = {{4, 0x0000FFFFu}, {2, 0x00FF00FFu}, {1, 0x0F0F0F0Fu}};
  for (const auto& [distance, low] : kSteps) {
    const size_t shift = 4 * distance;
    for (size_t r = 0; r < kPerWord; ++r) {
      if ((r & distance) != 0) continue;
      for (size_t c = 0; c < kTurned; ++c) {
        const uint32_t moved = (rows[r][c] >> shift ^ rows[r + distance][c]) & low;
        rows[r][c] ^= moved << shift;
        rows[r + distance][c] ^= moved;
      }
    }
  }
}

// qweight [in, out / 8], eight outputs in a word -> [in / 8, out], eight inputs in a word.
void turn_awq_gemm(const std::byte* qweight, size_t out_features, size_t in_features, uint32_t* turned) {
  const size_t words = out_features / kPerWord;
  for (size_t i = 0; i < in_features; i += kPerWord, turned += out_features) {
    for (size_t c = 0; c < words; c += kTurned) {
      const size_t columns = std::min(kTurned, words - c);
      uint32_t rows[kPerWord][kTurned] = {};
      for (size_t k = 0; k < kPerWord; ++k) {
        std::memcpy(rows[k], qweight + ((i + k) * words + c) * sizeof(uint32_t), columns * sizeof(uint32_t));
      }
      transpose_nibbles(rows);
      for (size_t w = 0; w < columns; ++w) {
        for (size_t n = 0; n < kPerWord; ++n) turned[(c + w) * kPerWord + kOrder[n]] = rows[n][w];
      }
    }
  }
}

// Nothing for the layouts of old kernels.
Expected<std::optional<CodeWords>> read_words(const ModuleTensors& tensors, const AwqModule& layout) {
  const bool gemm = layout.row->layout == AwqLayout::kGemm;
  if ((!gemm && layout.row->layout != AwqLayout::kGemv) || layout.in_features % kPerWord != 0) {
    return std::optional<CodeWords>();
  }
  NIBBLE_TRY(Tensor tensor, tensors.load("qweight"));
  if (!gemm) return std::optional(CodeWords{std::move(tensor), 1, layout.in_features / kPerWord});
  const NewWords words(tensor.bytes.size() / sizeof(uint32_t));
  turn_awq_gemm(tensor.bytes.data(), layout.out_features, layout.in_features, words.data);
  return std::optional(CodeWords{words.tensor(), layout.out_features, 1});
}

std::string format_name(const AwqModule& layout) {
  return fmt::format("awq {}", layout.zeros == "scaled_zeros" ? "llm-awq" : layout.row->name);
}

}  // namespace

void unpack_awq_gemm(const uint32_t* qweight, size_t out_features, size_t in_features, uint8_t* codes) {
  // Codes are transposed, 8x8 at a time, in a block that fits the first cache, so that both sides
  // are read and written by whole cache lines: 16 words are 128 outputs.
  constexpr size_t kWords = 16;
  constexpr size_t kInputs = 64;
  const size_t words = out_features / kPerWord;
  uint8_t block[kWords * kPerWord][kInputs];
  for (size_t c = 0; c < words; c += kWords) {
    const size_t columns = std::min(kWords, words - c);
    for (size_t i = 0; i < in_features; i += kInputs) {
      const size_t inputs = std::min(kInputs, in_features - i);
      for (size_t r = 0; r < inputs; r += 8) {
        const uint32_t* lines = qweight + (i + r) * words + c;
        for (size_t w = 0; w < columns; ++w) {
          uint64_t eight[8] = {};
          for (size_t k = 0; k < std::min<size_t>(8, inputs - r); ++k)
            eight[k] = spread<4>(lines[k * words + w]);
          transpose_8x8(eight);
          for (size_t n = 0; n < kPerWord; ++n) {
            std::memcpy(&block[w * kPerWord + kOrder[n]][r], &eight[n], sizeof(eight[n]));
          }
        }
      }
      for (size_t o = 0; o < columns * kPerWord; ++o) {
        std::memcpy(codes + (c * kPerWord + o) * in_features + i, block[o], inputs);
      }
    }
  }
}

void unpack_awq_gemv(const uint32_t* qweight, size_t out_features, size_t in_features, uint8_t* codes) {
  for (size_t w = 0; w < out_features * (in_features / kPerWord); ++w) {
    const uint64_t eight = spread<4>(qweight[w]);
    std::memcpy(codes + w * kPerWord, &eight, sizeof(eight));
  }
}

void unpack_awq_fast(const uint16_t* qweight, size_t out_features, size_t in_features, uint8_t* codes) {
  // 64 words hold 64 inputs of 4 outputs: 16 words an output, 8 of them 32 inputs. Nibble s of word
  // e is input 8 s + e of the 32.
  for (size_t o = 0; o < out_features; o += 4) {
    for (size_t i = 0; i < in_features; i += 64) {
      for (size_t n = 0; n < 4; ++n) {
        for (size_t half = 0; half < 64; half += 32) {
          uint8_t* out = codes + (o + n) * in_features + i + half;
          for (size_t s = 0; s < 4; ++s) {
            for (size_t e = 0; e < 8; ++e) out[8 * s + e] = static_cast<uint8_t>(qweight[e] >> (4 * s) & 0xF);
          }
          qweight += 8;
        }
      }
    }
  }
}

void pack_awq_gemm(const uint8_t* codes, size_t out_features, size_t in_features, uint32_t* qweight) {
  // Whole cache lines of codes are read; the 64 rows of words that grow side by side fit the first cache.
  constexpr size_t kInputs = 64;
  const size_t words = out_features / kPerWord;
  for (size_t i = 0; i < in_features; i += kInputs) {
    const size_t end = std::min(in_features, i + kInputs);
    for (size_t c = 0; c < words; ++c) {
      for (size_t r = i; r < end; r += 8) {
        const size_t inputs = std::min<size_t>(8, end - r);
        uint64_t eight[8] = {};
        for (size_t n = 0; n < kPerWord; ++n) {
          std::memcpy(&eight[n], codes + (c * kPerWord + kOrder[n]) * in_features + r, inputs);
        }
        transpose_8x8(eight);
        for (size_t k = 0; k < inputs; ++k) {
          qweight[(r + k) * words + c] = static_cast<uint32_t>(squeeze<4>(eight[k]));
        }
      }
    }
  }
}

void pack_awq_gemv(const uint8_t* codes, size_t out_features, size_t in_features, uint32_t* qweight) {
  for (size_t w = 0; w < out_features * (in_features / kPerWord); ++w) {
    uint64_t eight = 0;
    std::memcpy(&eight, codes + w * kPerWord, sizeof(eight));
    qweight[w] = static_cast<uint32_t>(squeeze<4>(eight));
  }
}

void pack_awq_fast(const uint8_t* codes, size_t out_features, size_t in_features, uint16_t* qweight) {
  for (size_t o = 0; o < out_features; o += 4) {
    for (size_t i = 0; i < in_features; i += 64) {
      for (size_t n = 0; n < 4; ++n) {
        for (size_t half = 0; half < 64; half += 32) {
          const uint8_t* in = codes + (o + n) * in_features + i + half;
          for (size_t e = 0; e < 8; ++e) {
            *qweight++ = static_cast<uint16_t>(in[e] | in[8 + e] << 4 | in[16 + e] << 8 | in[24 + e] << 12);
          }
        }
      }
    }
  }
}

Expected<DecodedModule> decode_awq(const ModuleTensors& tensors, const AwqConfig& config,
                                   const std::optional<LinearShape>& shape, CodeStorage storage) {
  NIBBLE_TRY(const AwqModule layout, read_layout(tensors, config, shape));
  DecodedModule decoded;
  QuantizedWeight& weight = decoded.weight;
  weight.formula = layout.row->layout == AwqLayout::kFast ? WeightFormula::kOffset : WeightFormula::kAffine;
  weight.out_features = layout.out_features;
  weight.in_features = layout.in_features;
  weight.bits = 4;
  weight.group_size = layout.group_size;
  weight.num_groups = layout.num_groups;
  weight.rounding = layout.scale_dtype;
  weight.dtype = layout.scale_dtype;
  NIBBLE_TRY(weight.scales, read_scales(tensors, layout));
  NIBBLE_TRY(weight.zeros, read_zeros(tensors, layout));
  if (storage == CodeStorage::kWords) {
    NIBBLE_TRY(weight.words, read_words(tensors, layout));
  }
  if (!weight.words) {
    NIBBLE_TRY(weight.codes, read_codes(tensors, layout));
  }
  decoded.format = format_name(layout);
  return decoded;
}

Expected<ModuleSummary> summarize_awq(const ModuleTensors& tensors, const AwqConfig& config) {
  NIBBLE_TRY(const AwqModule layout, read_layout(tensors, config, std::nullopt));
  ModuleSummary summary;
  summary.format = format_name(layout);
  summary.out_features = layout.out_features;
  summary.in_features = layout.in_features;
  summary.bits = 4;
  summary.group_size = layout.group_size;
  summary.stored_bytes = tensors.stored_bytes(kAwqSuffixes);
  return summary;
}

}  // namespace nibble
