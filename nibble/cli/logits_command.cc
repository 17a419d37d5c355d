// `nibble logits`: what a model says at every position of given sequences.

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>

#include "nibble/base/cancel.h"
#include "nibble/base/log.h"
#include "nibble/base/progress.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/checkpoint/safetensors.h"
#include "nibble/cli/command.h"
#include "nibble/cli/numa_placement.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/cli/pull_model.h"
#include "nibble/nn/kv_cache.h"

namespace nibble::cli {
namespace {

struct LogitsArguments {
  CommonOptions common;
  ModelOption model;
  LoadOptions load;
  std::string input_ids;
  std::string output;
  std::optional<int64_t> prefill_chunk;
  bool force = false;
};

constexpr size_t kPrefillChunk = 512;  // tokens per forward pass

struct InputIds {
  std::vector<int32_t> ids;  // [batch, length]
  size_t batch = 0;
  size_t length = 0;
};

Expected<InputIds> read_input_ids(const std::string& path) {
  NIBBLE_TRY(const SafetensorsFile file, at(path, SafetensorsFile::open(path)));
  if (file.header().tensors.count("input_ids") == 0) {
    return fail(ErrorCode::kInvalidArgument, "holds no tensor \"input_ids\"")
        .at(path)
        .with_fix("It must be int32 or int64 [batch, length].");
  }
  NIBBLE_TRY(const Tensor tensor, at(path, file.tensor("input_ids")));
  const bool is_integer = tensor.dtype == DType::kI32 || tensor.dtype == DType::kI64;
  if (!is_integer || tensor.shape.size() != 2 || tensor.size() == 0) {
    return fail(ErrorCode::kInvalidArgument, "{} {}, but int32 or int64 [batch, length] is wanted",
                dtype_name(tensor.dtype), shape_name(tensor.shape))
        .at(fmt::format("{}: input_ids", path));
  }
  InputIds out;
  out.batch = tensor.shape[0];
  out.length = tensor.shape[1];
  if (tensor.dtype == DType::kI32) {
    out.ids = copy_elements<int32_t>(tensor);
    return out;
  }
  out.ids.reserve(tensor.size());
  for (const int64_t id : copy_elements<int64_t>(tensor)) {
    if (id < 0 || id > std::numeric_limits<int32_t>::max()) {
      return fail(ErrorCode::kInvalidArgument, "{} is not a token id", id)
          .at(fmt::format("{}: input_ids", path));
    }
    out.ids.push_back(static_cast<int32_t>(id));
  }
  return out;
}

// [batch, length, vocab] in one piece; each pass writes its rows where they belong. Short sequences
// go through the model together, as many as fit a chunk; a long one by itself, chunk after chunk.
Expected<std::vector<float>> compute_logits(const CausalLM& model, const InputIds& input, size_t chunk,
                                            ThreadPool& pool) {
  const size_t vocab_size = model.config().vocab_size;
  const auto bytes = num_elements({input.batch, input.length, vocab_size, sizeof(float)});
  if (!bytes) {
    return fail(ErrorCode::kOutOfMemory, "the logits of {} x {} tokens do not fit", input.batch,
                input.length);
  }
  std::vector<float> logits(*bytes / sizeof(float));
  Arena arena;
  ExecutionContext context{pool, arena};
  Progress progress("logits", input.ids.size(), "tokens");
  const size_t together = std::max<size_t>(1, chunk / input.length);
  for (size_t first = 0; first < input.batch; first += together) {
    const size_t sequences = std::min(together, input.batch - first);
    std::vector<std::unique_ptr<KvCache>> caches;
    for (size_t s = 0; s < sequences; ++s) caches.push_back(model.make_cache(input.length));
    for (size_t begin = 0; begin < input.length; begin += chunk) {
      NIBBLE_RETURN_IF_ERROR(check_cancelled());
      const size_t count = std::min(chunk, input.length - begin);
      std::vector<SequenceChunk> parts;
      for (size_t s = 0; s < sequences; ++s) {
        const size_t row = (first + s) * input.length + begin;
        parts.push_back({std::span(input.ids).subspan(row, count), caches[s].get(), /*num_logits=*/count});
      }
      const size_t row = first * input.length + begin;
      MatrixView<float> rows(logits.data() + row * vocab_size, sequences * count, vocab_size);
      NIBBLE_RETURN_IF_ERROR(model.forward(parts, rows, context));
      progress.advance(sequences * count);
    }
  }
  return logits;
}

Status run_logits(const LogitsArguments& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_RETURN_IF_ERROR(offer_pull(options.model, options.common));
  NIBBLE_TRY(const FromPretrainedOptions load, options.load.to_from_pretrained(options.model.revision));
  NIBBLE_TRY(const ModelFiles files, find_model(options.model.model, options.model.revision));
  NIBBLE_RETURN_IF_ERROR(check_output_file(options.output, files, options.force));
  NIBBLE_TRY(const InputIds input, read_input_ids(options.input_ids));
  const size_t threads = options.common.num_threads();
  ThreadPool pool(threads, numa_placement(options.model, threads));
  NIBBLE_TRY(const auto model, AutoModelForCausalLM::from_pretrained(options.model.model, load, pool));
  if (options.load.ctx_size && input.length > static_cast<size_t>(*options.load.ctx_size)) {
    return fail(ErrorCode::kOutOfMemory, "sequences of {} tokens are longer than --ctx-size {}", input.length,
                *options.load.ctx_size)
        .at(options.input_ids)
        .with_fix(fmt::format("Use --ctx-size {}.", input.length));
  }

  const auto start = std::chrono::steady_clock::now();
  const size_t chunk = options.prefill_chunk ? static_cast<size_t>(*options.prefill_chunk) : kPrefillChunk;
  NIBBLE_TRY(std::vector<float> values, compute_logits(*model, input, chunk, pool));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const Shape shape = {input.batch, input.length, model->config().vocab_size};
  const Tensor logits = Tensor::of(DType::kF32, shape, std::move(values));
  NIBBLE_RETURN_IF_ERROR(
      write_safetensors(options.output, std::map<std::string, Tensor>{{"logits", logits}}));

  const double rate = static_cast<double>(input.ids.size()) / seconds;
  if (options.common.json) {
    return write_json({{"output", options.output},
                       {"shape", shape},
                       {"tokens_per_second", rate},
                       {"compute", options.load.compute},
                       {"kernels", model->kernels()},
                       {"quantization", quantization_name(model->quantization_config())},
                       {"warnings", warnings()}});
  }
  log_line(LogLevel::kNormal,
           fmt::format("{}: logits {}, {:.1f} tok/s", options.output, shape_name(shape), rate));
  return {};
}

Action define_logits(CLI::App& app) {
  const auto options = std::make_shared<LogitsArguments>();
  add_model_option(app, options->model);
  app.add_option("--input-ids", options->input_ids, "A safetensors file with input_ids, int [batch, length]")
      ->type_name("FILE")
      ->required();
  app.add_option("-o,--output", options->output, "Where logits go: float32 [batch, length, vocab]")
      ->type_name("FILE")
      ->required();
  add_integer(app, "--prefill-chunk", options->prefill_chunk, "Tokens per forward pass (default: 512)", 1,
              int64_t{1} << 20);
  app.add_flag("--force", options->force, "Replace the output file");
  add_load_options(app, options->load);
  add_common_options(app, options->common, "Print shape and speed as JSON");
  return [options] { return run_logits(*options); };
}

}  // namespace

const Command kLogitsCommand = {
    .name = "logits",
    .summary = "Compute the logits of token sequences",
    .examples =
        "  nibble logits ./model --input-ids ids.safetensors -o logits.safetensors --compute f32\n"
        "  nibble logits ./model --input-ids ids.safetensors -o nf4.safetensors --quantize nf4",
    .define = define_logits,
};

}  // namespace nibble::cli
