// The arithmetic of bitsandbytes' quantizers, by the rules of its tensor-operation path (CPU):
// docs/formats/bitsandbytes.md. Each block of consecutive elements is a piece of work of its own,
// so that the bytes do not depend on the number of threads.

#include "nibble/quantization/bitsandbytes_quantize.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/check.h"
#include "nibble/base/float16.h"
#include "nibble/quantization/float_blocks.h"
#include "nibble/quantization/formats/bnb_4bit.h"
#include "nibble/quantization/formats/module_tensors.h"

namespace nibble {
namespace {

constexpr size_t kRun = 4096;  // elements that are worked on at once: they stay in the innermost cache
constexpr size_t kMostBlocks = kRun / 32;
constexpr float kTiny = 1e-38f;  // stands for an absmax of zero, so that its reciprocal is finite

// Sorted bounds between codes and the code of each interval.
template <size_t kCodes>
struct Buckets {
  std::array<float, kCodes - 1> bounds;  // a value on a bound belongs below it
  std::array<uint8_t, kCodes> codes;

  uint8_t code_of(float value) const {
    size_t below = 0;  // how many bounds are smaller than the value; a search without branches
    for (size_t step = kCodes / 2; step > 0; step /= 2) below += value > bounds[below + step - 1] ? step : 0;
    return codes[below];
  }
};

template <size_t kCodes>
Buckets<kCodes> make_buckets(std::span<const float, kCodes> codebook) {
  Buckets<kCodes> buckets;
  for (size_t i = 0; i < kCodes; ++i) buckets.codes[i] = static_cast<uint8_t>(i);
  // Stable: of FP4's two zeros, code 0 comes before code 8.
  std::stable_sort(buckets.codes.begin(), buckets.codes.end(),
                   [&](uint8_t a, uint8_t b) { return codebook[a] < codebook[b]; });
  for (size_t i = 0; i + 1 < kCodes; ++i) {
    buckets.bounds[i] = (codebook[buckets.codes[i]] + codebook[buckets.codes[i + 1]]) / 2.0f;
  }
  return buckets;
}

using Buckets8 = Buckets<256>;

CodeIntervals code_intervals(const Buckets<16>& buckets) {
  CodeIntervals intervals = {.bounds = buckets.bounds, .codes = {}};
  std::copy(buckets.codes.begin(), buckets.codes.end(), intervals.codes.begin());
  return intervals;
}

// Scales blocks to [-1, 1] by their absmax, which is returned as stored. The short last block of a tensor
// has rules of its own: it is divided instead of multiplied, and its absmax is never zero.
void normalize_whole(std::span<float> values, size_t blocksize, const float* absmax) {
  float factors[kMostBlocks];
  for (size_t i = 0; i < values.size() / blocksize; ++i) factors[i] = 1.0f / std::max(absmax[i], kTiny);
  scale_and_clamp(values, blocksize, factors);
}

float normalize_short(std::span<float> block, float absmax) {
  absmax = std::max(absmax, kTiny);
  for (float& value : block) value = std::clamp(value / absmax, -1.0f, 1.0f);
  return absmax;
}

void note_first(std::atomic<size_t>& first, size_t index) {
  size_t seen = first.load(std::memory_order_relaxed);
  while (index < seen && !first.compare_exchange_weak(seen, index, std::memory_order_relaxed)) {
  }
}

Failure not_finite(const Tensor& weight, size_t index) {
  float value = 0;
  load_floats(weight, index, 1, &value);
  return fail(ErrorCode::kDataLoss, "element {} is {}, which cannot be quantized",
              element_name(weight.shape, index), std::isnan(value) ? "NaN" : "infinite")
      .with_fix("The file is damaged, or training went wrong: fetch it again, or leave the module out.");
}

Status check_weight(const Tensor& weight) {
  const bool has_floats =
      weight.dtype == DType::kF16 || weight.dtype == DType::kBF16 || weight.dtype == DType::kF32;
  if (!has_floats) {
    return fail(ErrorCode::kUnsupported, "elements are {}, but only F16, BF16 and F32 are quantized",
                dtype_name(weight.dtype));
  }
  const auto bytes = num_bytes(weight.info());
  if (weight.shape.size() != 2 || !bytes || *bytes != weight.bytes.size() || *bytes == 0) {
    return fail(ErrorCode::kInvalidArgument,
                "shape {} with {} bytes is not a weight [out_features, in_features]",
                shape_name(weight.shape), weight.bytes.size());
  }
  return {};
}

// Blocks of absmax as codes of the dynamic map.
struct NestedAbsmax {
  std::vector<uint8_t> codes;
  std::vector<float> absmax;
};

NestedAbsmax quantize_absmax(const std::vector<float>& absmax, float offset) {
  static const Buckets8 kBuckets = make_buckets<256>(dynamic_map());
  NestedAbsmax nested;
  for (size_t begin = 0; begin < absmax.size(); begin += kNestedBlocksize) {
    const size_t count = std::min(kNestedBlocksize, absmax.size() - begin);
    float block[kNestedBlocksize];
    for (size_t i = 0; i < count; ++i) block[i] = absmax[begin + i] - offset;
    float largest = largest_magnitude({block, count});
    if (count < kNestedBlocksize) {
      largest = normalize_short({block, count}, largest);
    } else {
      normalize_whole({block, count}, count, &largest);
    }
    nested.absmax.push_back(largest);
    for (size_t i = 0; i < count; ++i) nested.codes.push_back(kBuckets.code_of(block[i]));
  }
  return nested;
}

// Codes, two a byte with the first one in the high half, and the absmax of each block.
struct Blocks {
  AlignedBuffer packed;
  std::vector<float> absmax;
};

Expected<Blocks> quantize_blocks(const Tensor& weight, std::span<const float, 16> codebook, size_t blocksize,
                                 ThreadPool& pool) {
  const CodeIntervals intervals = code_intervals(make_buckets<16>(codebook));
  const size_t count = weight.size();
  Blocks blocks;
  blocks.packed = AlignedBuffer(ceil_div(count, 2));
  blocks.absmax.resize(ceil_div(count, blocksize));
  std::atomic<size_t> first_bad = count;
  // Blocksizes are powers of two, so that a run is whole blocks.
  const size_t run_size = std::max(kRun, blocksize);
  pool.parallel_for(ceil_div(count, run_size), 16, [&](size_t begin, size_t end, size_t) {
    std::vector<float> values(run_size + 1);
    for (size_t start = begin * run_size; start < std::min(end * run_size, count); start += run_size) {
      const size_t size = std::min(run_size, count - start);
      const size_t whole = size / blocksize * blocksize;
      const std::span<float> run = std::span(values).first(size);
      float* const absmax = blocks.absmax.data() + start / blocksize;
      load_floats(weight, start, size, run.data());
      block_magnitudes(run.first(whole), blocksize, absmax);
      const size_t num_blocks = ceil_div(size, blocksize);
      if (whole < size) absmax[num_blocks - 1] = largest_magnitude(run.subspan(whole));
      if (!std::isfinite(largest_magnitude({absmax, num_blocks}))) {
        const auto bad = std::find_if(run.begin(), run.end(), [](float v) { return !std::isfinite(v); });
        note_first(first_bad, start + static_cast<size_t>(bad - run.begin()));
        return;
      }
      normalize_whole(run.first(whole), blocksize, absmax);
      if (whole < size) {
        absmax[num_blocks - 1] = normalize_short(run.subspan(whole), absmax[num_blocks - 1]);
      }
      // The partner that an odd last element lacks counts as zero.
      values[size] = 0.0f;
      pack_codes({values.data(), size + size % 2}, intervals, blocks.packed.as<uint8_t>() + start / 2);
    }
  });
  if (first_bad.load() != count) return not_finite(weight, first_bad.load());
  return blocks;
}

// Codes are written once and read once: on huge pages, where the fresh ones of a vector would take longer
// than the codes in them.
Tensor tensor_of(AlignedBuffer buffer, DType dtype, Shape shape) {
  const auto owner = std::make_shared<const AlignedBuffer>(std::move(buffer));
  return {dtype, std::move(shape), {owner->data(), owner->size()}, owner};
}

std::vector<float> to_vector(std::span<const float> values) { return {values.begin(), values.end()}; }

}  // namespace

std::optional<Shape> bnb_storage_shape(size_t count, DType quant_storage) {
  const size_t bytes = ceil_div(count, 2);
  const size_t item = dtype_bits(quant_storage) / 8;
  if (item == 0 || bytes % item != 0) return std::nullopt;
  return Shape{bytes / item, 1};
}

float bnb_absmax_offset(const std::vector<float>& absmax) {
  // The original sums in float, in an order that depends on the machine; the last bit may differ.
  double sum = 0.0;
  for (const float value : absmax) sum += double{value};
  return static_cast<float>(sum / static_cast<double>(absmax.size()));
}

Expected<std::vector<float>> bnb_absmax(const Tensor& weight, size_t blocksize, ThreadPool& pool) {
  NIBBLE_RETURN_IF_ERROR(check_weight(weight));
  const size_t count = weight.size();
  std::vector<float> absmax(ceil_div(count, blocksize));
  pool.parallel_for(absmax.size(), 64, [&](size_t begin, size_t end, size_t) {
    std::vector<float> values(blocksize);
    for (size_t b = begin; b < end; ++b) {
      const size_t size = std::min(blocksize, count - b * blocksize);
      load_floats(weight, b * blocksize, size, values.data());
      absmax[b] = largest_magnitude({values.data(), size});
      if (size < blocksize) absmax[b] = std::max(absmax[b], kTiny);
    }
  });
  return absmax;
}

Expected<std::map<std::string, Tensor>> quantize_bnb_4bit(const Tensor& weight, const Bnb4BitOptions& options,
                                                          ThreadPool& pool) {
  NIBBLE_RETURN_IF_ERROR(check_weight(weight));
  if (std::find(std::begin(kBnbBlocksizes), std::end(kBnbBlocksizes), options.blocksize) ==
      std::end(kBnbBlocksizes)) {
    return fail(ErrorCode::kInvalidArgument, "blocksize {}, but it must be one of {}", options.blocksize,
                fmt::join(kBnbBlocksizes, ", "));
  }
  const auto stored_shape = bnb_storage_shape(weight.size(), options.quant_storage);
  if (!stored_shape) {
    return fail(ErrorCode::kInvalidArgument, "{} bytes of codes do not fill whole elements of {}",
                ceil_div(weight.size(), 2), torch_dtype_name(options.quant_storage))
        .with_fix("Take quant_storage uint8.");
  }
  const auto codebook = options.nf4 ? nf4_codebook() : fp4_codebook();
  NIBBLE_TRY(Blocks blocks, quantize_blocks(weight, codebook, options.blocksize, pool));

  BnbQuantState state{.quant_type = options.nf4 ? "nf4" : "fp4",
                      .blocksize = options.blocksize,
                      .dtype = weight.dtype,
                      .out_features = weight.shape[0],
                      .in_features = weight.shape[1],
                      .nested = options.double_quant};
  std::map<std::string, Tensor> tensors;
  tensors["weight"] = tensor_of(std::move(blocks.packed), options.quant_storage, *stored_shape);
  const Shape num_blocks = {blocks.absmax.size()};
  if (options.double_quant) {
    state.nested_offset = bnb_absmax_offset(blocks.absmax);
    NestedAbsmax nested = quantize_absmax(blocks.absmax, state.nested_offset);
    const Shape nested_blocks = {nested.absmax.size()};
    tensors["weight.absmax"] = Tensor::of(DType::kU8, num_blocks, std::move(nested.codes));
    tensors["weight.nested_absmax"] = Tensor::of(DType::kF32, nested_blocks, std::move(nested.absmax));
    tensors["weight.nested_quant_map"] = Tensor::of(DType::kF32, {256}, to_vector(dynamic_map()));
  } else {
    tensors["weight.absmax"] = Tensor::of(DType::kF32, num_blocks, std::move(blocks.absmax));
  }
  tensors["weight.quant_map"] = Tensor::of(DType::kF32, {16}, to_vector(codebook));
  const std::string text = to_text(state);
  tensors[fmt::format("{}{}", kQuantStatePrefix, state.quant_type)] =
      Tensor::of(DType::kU8, {text.size()}, std::vector<char>(text.begin(), text.end()));
  return tensors;
}

Expected<std::map<std::string, Tensor>> quantize_bnb_int8(const Tensor& weight, ThreadPool& pool) {
  NIBBLE_RETURN_IF_ERROR(check_weight(weight));
  const size_t out_features = weight.shape[0];
  const size_t in_features = weight.shape[1];
  const size_t count = out_features * in_features;
  AlignedBuffer codes(count);
  std::vector<float> scb(out_features);
  std::atomic<size_t> first_bad = count;
  pool.parallel_for(out_features, 1, [&](size_t begin, size_t end, size_t) {
    std::vector<float> row(in_features);
    for (size_t o = begin; o < end; ++o) {
      load_floats(weight, o * in_features, in_features, row.data());
      // The original casts to float16 first, whatever the weight was.
      if (weight.dtype != DType::kF16) {
        for (float& value : row) value = fp16_to_float(float_to_fp16(value));
      }
      scb[o] = largest_magnitude(row);
      if (!std::isfinite(scb[o])) {
        const auto bad = std::ranges::find_if(row, [](float v) { return !std::isfinite(v); });
        note_first(first_bad, o * in_features + static_cast<size_t>(bad - row.begin()));
        return;
      }
      if (scb[o] == 0.0f) continue;  // the codes stay 0
      // PyTorch divides a number by a tensor as the number times the reciprocal: two roundings.
      scale_and_round(row, 1.0f / scb[o] * 127.0f, codes.as<int8_t>() + o * in_features);
    }
  });
  if (const size_t bad = first_bad.load(); bad != count) {
    float value = 0;
    load_floats(weight, bad, 1, &value);
    if (!std::isfinite(value)) return not_finite(weight, bad);
    return fail(ErrorCode::kUnsupported,
                "element {} is {}, but LLM.int8 starts from float16, which ends at 65504",
                element_name(weight.shape, bad), value)
        .with_fix("Quantize to 4 bits instead, or leave the module out (llm_int8_skip_modules).");
  }
  std::map<std::string, Tensor> tensors;
  tensors["weight"] = tensor_of(std::move(codes), DType::kI8, weight.shape);
  tensors["SCB"] = Tensor::of(DType::kF32, {out_features}, std::move(scb));
  tensors["weight_format"] = Tensor::of(DType::kU8, {}, std::vector<uint8_t>{0});
  return tensors;
}

}  // namespace nibble
