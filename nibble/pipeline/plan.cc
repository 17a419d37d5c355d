#include "nibble/pipeline/plan.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <system_error>

#include "nibble/base/memory.h"
#include "nibble/linalg/machine_speed.h"
#include "nibble/models/load_weights.h"
#include "nibble/quantization/bitsandbytes.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr size_t kFloat = sizeof(float);
constexpr size_t kMaxAtOnce = 2048;  // tokens; more do not make the products faster
constexpr size_t kMinAtOnce = 256;

// Measured: the share of the speed of large products that a whole run reaches, and the weights that
// rounding and bitsandbytes' quantizers take in a second.
constexpr double kShareOfPeak = 0.65;
constexpr double kRoundedPerSecond = 4e8;

// Linears that read one input: what the walk holds at a time.
struct Inputs {
  size_t in = 0;
  size_t out = 0;     // of all of them
  bool last = false;  // of a branch: writes into the residual stream
};

bool is_calibrated(const std::vector<size_t>& lengths) { return !lengths.empty(); }

bool has_two_streams(const QuantizeOptions& options) {
  return options.effort == Effort::kDefault || options.effort == Effort::kBest;
}

// Of the last block, which stands for all. Of experts one stands for all, and `copies` is their number.
struct BlockShape {
  std::vector<Inputs> inputs;
  size_t first_of_mlp = 0;  // of the inputs
  size_t copies_of_mlp = 1;
};

BlockShape block_shape(const ModelSource& source) {
  const BlockModules modules =
      block_modules(source.spec, source.config.num_hidden_layers - 1, source.prefix_missing);
  BlockShape shape;
  const auto add = [&](std::initializer_list<std::string> names, bool last) {
    Inputs inputs{.last = last};
    for (const std::string& name : names) {
      if (name.empty()) continue;
      const Shape& size = source.slot(name).shape;
      inputs.out += size[0];
      inputs.in = size[1];
    }
    if (inputs.in > 0) shape.inputs.push_back(inputs);
  };
  add({modules.q, modules.k, modules.v, modules.qkv, modules.q_a, modules.kv_a}, false);
  add({modules.q_b}, false);
  add({modules.kv_b}, false);
  add({modules.o}, true);
  shape.first_of_mlp = shape.inputs.size();
  const MlpModules& mlp = modules.mlps.front();
  add({mlp.gate, mlp.up, mlp.gate_up}, false);
  add({mlp.down}, true);
  shape.copies_of_mlp = modules.mlps.size();
  return shape;
}

// Multiplications and additions of the solver for each weight and input, better-quantizers.md section 4.4.
double solver_passes(const QuantizeOptions& options) {
  switch (options.effort) {
    case Effort::kCompat:
      return 2;
    case Effort::kFast:
      return 15;
    case Effort::kDefault:
      return 17;
    case Effort::kBest:
      return 30;
  }
  return 0;
}

// Of the whole run. A multiplication and an addition are two.
double count_operations(const ModelSource& source, const QuantizeOptions& options,
                        const std::vector<size_t>& lengths) {
  const BlockShape shape = block_shape(source);
  const PretrainedConfig& config = source.config;
  double tokens = 0;
  double attention = 0;
  for (const size_t length : lengths) {
    const auto n = static_cast<double>(length);
    tokens += n;
    attention +=
        n * n * static_cast<double>(config.num_attention_heads * (config.head_dim + config.value_head_dim));
  }
  const bool two = has_two_streams(options);
  double operations = attention * (two ? 2 : 1);
  for (size_t i = 0; i < shape.inputs.size(); ++i) {
    const auto in = static_cast<double>(shape.inputs[i].in);
    const auto out = static_cast<double>(shape.inputs[i].out);
    const bool last = shape.inputs[i].last;
    const double copies = i >= shape.first_of_mlp ? static_cast<double>(shape.copies_of_mlp) : 1;
    const double reached =
        copies > 1 ? tokens * static_cast<double>(source.spec.experts_per_token) : tokens;  // in all
    const double forwards = two ? (last ? 3 : 2) : 1;
    operations += forwards * 2 * reached * in * out + reached * in * in;
    if (two) operations += last ? 2 * reached * in * out : 2 * reached * in * in + copies * 2 * in * in * out;
    operations += copies * (solver_passes(options) * out * in * in + 2 * in * in * in);
  }
  return operations * static_cast<double>(config.num_hidden_layers);
}

linalg::Arithmetic arithmetic_of(const QuantizeOptions& options) {
  return options.compute == ComputeMode::kF32 ? linalg::Arithmetic::kF32 : linalg::fastest_arithmetic();
}

// --- memory: what BlockWalk and the solver hold at their peak ---

// The program, its libraries and tables; and what a tokenizer needs for each byte of its file, which the
// allocator keeps when it has gone.
constexpr size_t kProgramBytes = 25'000'000;
constexpr size_t kTokenizerFactor = 16;

size_t program_bytes(const ModelSource& source) {
  return kProgramBytes + kTokenizerFactor * source.tokenizer_bytes;
}

size_t stream_bytes(const ModelSource& source, const QuantizeOptions& options, size_t tokens, size_t inner) {
  const size_t element = options.compute == ComputeMode::kF32 ? 4 : 2;
  const size_t streams = has_two_streams(options) ? 2 : 1;
  return element * tokens * (streams * source.config.hidden_size + inner);
}

size_t block_bytes(const ModelSource& source, const QuantizeOptions& options, size_t at_once) {
  const BlockShape shape = block_shape(source);
  const bool two = has_two_streams(options);
  size_t scratch = 0;  // of the passes over tokens, kept from one to the next
  size_t most = 0;
  size_t first_out = 0;
  size_t first_weights = 0;
  for (const Inputs& inputs : shape.inputs) {
    const size_t weight = inputs.in * inputs.out * kFloat;
    const size_t square = inputs.in * inputs.in * kFloat;
    // Weights before and after; Gram matrix; the shift, and what it is made of; the factor in double, Hd
    // and the factor in float, both once more in panels.
    const size_t shift = two ? weight + (inputs.last ? weight : square) : 0;
    const size_t solver = (options.effort == Effort::kCompat ? 4 : 5) * square;  // measured
    most = std::max(most, (inputs.last ? first_weights : 0) + 2 * weight + square + shift + solver);
    if (inputs.last) {
      // Residual, input, output of the branch and its target; the inner values; what the first linears give.
      const size_t inner = (two ? 2 : 1) * inputs.in + first_out;
      scratch = std::max(scratch, at_once * kFloat * ((two ? 4 : 3) * source.config.hidden_size + inner));
    } else {
      first_out = inputs.out;
      first_weights = 2 * weight;
    }
  }
  return most + scratch;
}

size_t longest_of(const std::vector<size_t>& lengths) {
  return lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
}

// What rounding one module holds at once: the weight as it is stored, its codes one to a byte, and packed.
size_t largest_module_bytes(const ModelSource& source) {
  size_t largest = 0;
  for (const ModuleSlot& slot : source.slots) {
    if (slot.role != ModuleRole::kLinear) continue;
    const TensorInfo* const weight = source.checkpoint->find(slot.name + ".weight");
    const size_t stored = weight == nullptr ? kFloat : dtype_bits(weight->dtype) / 8;
    largest = std::max(largest, num_elements(slot.shape).value_or(0) * (stored + 2));
  }
  return largest;
}

size_t memory_of(const ModelSource& source, const QuantizeOptions& options,
                 const std::vector<size_t>& lengths, const QuantizePlan& plan) {
  const size_t program = program_bytes(source);
  if (!is_calibrated(lengths)) return program + largest_module_bytes(source);
  const BlockShape shape = block_shape(source);
  size_t inner = 0;
  for (const Inputs& inputs : shape.inputs) {
    if (inputs.last) inner = std::max(inner, inputs.in);
  }
  const size_t streams = plan.spill ? 0 : stream_bytes(source, options, plan.calibration_tokens, inner);
  return program + streams + block_bytes(source, options, std::max(plan.tokens_at_once, longest_of(lengths)));
}

// Less at once, then files: until it fits or nothing is left to try.
void shrink_to_fit(const ModelSource& source, const QuantizeOptions& options,
                   const std::vector<size_t>& lengths, QuantizePlan& plan) {
  const auto fits = [&] {
    plan.peak_memory = memory_of(source, options, lengths, plan);
    return plan.peak_memory <= options.max_memory;
  };
  plan.tokens_at_once = kMaxAtOnce;
  plan.peak_memory = memory_of(source, options, lengths, plan);
  if (options.max_memory == 0 || !is_calibrated(lengths) || fits()) return;
  plan.spill = true;
  for (; plan.tokens_at_once > kMinAtOnce && !fits(); plan.tokens_at_once /= 2) {
  }
  fits();
}

// Without weights: double quantization would read all of them to tell the length of a text, which is a few
// bytes off without.
class HeadersOnly final : public Checkpoint {
 public:
  explicit HeadersOnly(const Checkpoint& source) : file_bytes_(source.file_bytes()) {
    tensors_ = source.tensors();
    metadata_ = source.metadata();
  }
  Expected<Tensor> tensor(std::string_view name) const override {
    return fail(ErrorCode::kUnavailable, "a plan reads no weights").at(name);
  }
  std::string file_of(std::string_view) const override { return {}; }
  size_t file_bytes() const override { return file_bytes_; }

 private:
  const size_t file_bytes_;
};

size_t disk_left(const fs::path& folder) {
  fs::path place = fs::absolute(folder);
  std::error_code error;
  while (!place.empty() && !fs::exists(place, error) && place != place.parent_path()) {
    place = place.parent_path();
  }
  const fs::space_info space = fs::space(place, error);
  return error ? SIZE_MAX : space.available;
}

}  // namespace

Expected<QuantizePlan> make_plan(const ModelSource& source, const Jobs& jobs, const QuantizeOptions& options,
                                 const std::vector<size_t>& calibration, ThreadPool& pool,
                                 double operations_per_second) {
  QuantizePlan plan;
  plan.modules = jobs.modules.size();
  std::shared_ptr<const Checkpoint> written = source.checkpoint;
  std::set<std::string> modules;
  for (const auto& [name, job] : jobs.modules) {
    modules.insert(name);
    plan.weights += job.out_features * job.in_features;
  }
  size_t codes = 0;
  if (const auto* const bnb = std::get_if<BitsAndBytesConfig>(&jobs.config)) {
    written = quantize_on_the_fly(std::make_shared<const HeadersOnly>(*written), *bnb, modules, pool,
                                  options.bnb_blocksize);
  } else {
    for (const auto& [name, job] : jobs.modules) {
      NIBBLE_TRY(const auto tensors, encoded_tensors(job.layout, job.settings.bits, job.out_features,
                                                     job.in_features, job.settings.group_size));
      for (const auto& [suffix, info] : tensors) codes += num_bytes(info).value_or(0);
    }
    plan.output_bytes = codes;
    if (is_calibrated(calibration)) plan.journal_bytes = codes;
  }
  for (const auto& [name, info] : written->tensors()) {
    const size_t bytes = num_bytes(info).value_or(0);
    const bool of_a_job =
        std::any_of(modules.begin(), modules.end(), [&name = name](const std::string& module) {
          return name.starts_with(module + ".") && !name.ends_with(".bias");
        });
    const bool stays = !of_a_job || std::holds_alternative<BitsAndBytesConfig>(jobs.config);
    if (stays) plan.output_bytes += bytes;
    if (of_a_job && stays) codes += bytes;
  }
  plan.bits_per_weight =
      plan.weights == 0 ? 0 : 8.0 * static_cast<double>(codes) / static_cast<double>(plan.weights);
  for (const size_t length : calibration) plan.calibration_tokens += length;
  shrink_to_fit(source, options, calibration, plan);
  if (is_calibrated(calibration)) {
    plan.operations = count_operations(source, options, calibration);
    plan.operations_per_second = operations_per_second > 0
                                     ? operations_per_second
                                     : linalg::measure_gemm(arithmetic_of(options), pool);
    plan.seconds = plan.operations / plan.operations_per_second / kShareOfPeak;
    if (plan.spill) plan.journal_bytes += stream_bytes(source, options, plan.calibration_tokens, 0) * 2;
    plan.journal_bytes += stream_bytes(source, options, plan.calibration_tokens, 0);
  } else {
    plan.seconds = static_cast<double>(plan.weights) / kRoundedPerSecond;
  }
  return plan;
}

Status check_fits(const QuantizePlan& plan, const QuantizeOptions& options, const fs::path& folder) {
  const size_t memory = options.max_memory > 0 ? options.max_memory : available_memory_bytes();
  if (memory > 0 && plan.peak_memory > memory) {
    Failure failure = fail(ErrorCode::kOutOfMemory, "this needs about {} of memory, but {} {}",
                           human_bytes(plan.peak_memory), human_bytes(memory),
                           options.max_memory > 0 ? "are allowed by --max-memory" : "are free");
    if (options.max_memory > 0) {
      return std::move(failure).with_fix(
          fmt::format("Allow --max-memory {}M, or calibrate with shorter sequences: --seqlen 512.",
                      (plan.peak_memory + 999'999) / 1'000'000));
    }
    return std::move(failure).with_fix(
        fmt::format("Let activations go to disk: --max-memory {}M; or less data: --nsamples, --seqlen.",
                    memory / 1'000'000 * 9 / 10));
  }
  const size_t disk = disk_left(folder);
  if (plan.output_bytes + plan.journal_bytes > disk) {
    return fail(ErrorCode::kOutOfMemory, "this needs about {} of disk while it runs, but {} are free",
                human_bytes(plan.output_bytes + plan.journal_bytes), human_bytes(disk))
        .at(folder.string())
        .with_fix("Write to another disk with -o.");
  }
  return {};
}

std::string to_text(const QuantizePlan& plan) {
  std::string text = fmt::format("{} modules, {:.1f} M weights -> {} in all, {:.2f} bits per weight",
                                 plan.modules, static_cast<double>(plan.weights) * 1e-6,
                                 human_bytes(plan.output_bytes), plan.bits_per_weight);
  if (plan.calibration_tokens > 0) text += fmt::format("; {} calibration tokens", plan.calibration_tokens);
  text += fmt::format("; peak memory about {}", human_bytes(plan.peak_memory));
  if (plan.spill) text += " with activations on disk";
  text += fmt::format("; {} on disk while it runs", human_bytes(plan.output_bytes + plan.journal_bytes));
  return text + fmt::format("; about {:.0f} s", std::max(1.0, plan.seconds));
}

}  // namespace nibble
