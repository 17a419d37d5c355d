#include "nibble/cli/options.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include <fmt/ranges.h>

#include "nibble/base/log.h"
#include "nibble/base/suggest.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/nn/linear.h"

namespace nibble::cli {
namespace {

// The type of an option that takes one of a few words.
constexpr const char* kWord = "WORD";

const std::vector<std::string> kFloatTypes = {"float32", "float16", "bfloat16"};
const std::map<std::string, std::string> kFloatTypeAliases = {
    {"f32", "float32"},   {"fp32", "float32"},           {"float", "float32"}, {"torch.float32", "float32"},
    {"f16", "float16"},   {"fp16", "float16"},           {"half", "float16"},  {"torch.float16", "float16"},
    {"bf16", "bfloat16"}, {"torch.bfloat16", "bfloat16"}};

// All of `text` as a number.
template <class T>
bool parse_number(std::string_view text, T& value) {
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

// An option whose text goes through `read`, which returns what is wrong or nothing.
CLI::Option* add_checked(CLI::App& app, const std::string& names, const std::string& type,
                         const std::string& description,
                         std::function<std::string(const std::string&)> read) {
  CLI::Option* const option = app.add_option_function<std::string>(
      names, [](const std::string&) {}, description);
  return option->type_name(type)->check(std::move(read), "", "");
}

}  // namespace

CLI::Option* add_integer(CLI::App& app, const std::string& names, std::optional<int64_t>& value,
                         const std::string& description, int64_t min, int64_t max) {
  return add_checked(app, names, "N", description, [&value, min, max](const std::string& text) {
    int64_t number = 0;
    if (parse_number(text, number) && number >= min && number <= max) {
      value = number;
      return std::string();
    }
    if (max == std::numeric_limits<int64_t>::max()) {
      return fmt::format("\"{}\" is not a whole number of at least {}", text, min);
    }
    return fmt::format("\"{}\" is not a whole number from {} to {}", text, min, max);
  });
}

CLI::Option* add_number(CLI::App& app, const std::string& names, std::optional<double>& value,
                        const std::string& description) {
  return add_checked(app, names, "X", description, [&value](const std::string& text) {
    double number = 0;
    if (!parse_number(text, number) || !std::isfinite(number)) {
      return fmt::format("\"{}\" is not a number", text);
    }
    value = number;
    return std::string();
  });
}

CLI::Option* add_choice(CLI::App& app, const std::string& names, std::string& value,
                        const std::string& description, const std::vector<std::string>& words,
                        const std::map<std::string, std::string>& aliases) {
  const std::string list = fmt::format("{}", fmt::join(words, ", "));
  return add_checked(app, names, kWord, fmt::format("{}: {}", description, list),
                     [&value, words, aliases, list](const std::string& text) {
                       const auto alias = aliases.find(text);
                       const std::string word = alias == aliases.end() ? text : alias->second;
                       for (const std::string& known : words) {
                         if (known != word) continue;
                         value = word;
                         return std::string();
                       }
                       std::string message = fmt::format("\"{}\" is none of {}", text, list);
                       if (const auto guess = nearest(text, words)) {
                         message += fmt::format(" (did you mean {}?)", *guess);
                       }
                       return message;
                     });
}

std::vector<std::string> words_of(const CLI::Option& option) {
  std::vector<std::string> words;
  if (option.get_type_name() != kWord) return words;
  // The description ends with the list, as add_choice() wrote it.
  const std::string& description = option.get_description();
  size_t begin = description.rfind(": ");
  while (begin != description.npos) {
    begin += 2;  // of ": " or ", "
    const size_t end = description.find(", ", begin);
    words.push_back(description.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

CLI::Option* add_float_type(CLI::App& app, const std::string& names, std::string& value,
                            const std::string& description) {
  return add_choice(app, names, value, description, kFloatTypes, kFloatTypeAliases);
}

void add_common_options(CLI::App& app, CommonOptions& options, const std::string& json) {
  constexpr int64_t kMaxThreads = 1024;
  const std::string group = "Common";
  app.add_flag("--json", options.json, json)->group(group);
  add_integer(app, "-t,--threads", options.threads, "Threads to compute with (default: all cores)", 1,
              kMaxThreads)
      ->group(group);
  app.add_flag("-v,--verbose", options.verbose, "Say what was found and chosen, and why")->group(group);
  app.add_flag("-q,--quiet", options.quiet, "Say nothing but errors")->group(group);
  app.parse_complete_callback([&options] {
    if (options.verbose) set_log_level(LogLevel::kVerbose);
    if (options.quiet) set_log_level(LogLevel::kQuiet);
  });
}

Status ModelOption::check() const {
  if (!model.empty()) return {};
  return fail(ErrorCode::kInvalidArgument, "no MODEL was named")
      .with_fix("Name a folder, a name in the Hugging Face cache (org/name), or a .gguf file.");
}

void add_model_option(CLI::App& app, ModelOption& option) {
  app.add_option("MODEL,-m,--model", option.model,
                 "A folder, a name in the Hugging Face cache (org/name, org/name@revision), or a .gguf file")
      ->type_name("MODEL");
  app.add_option("--revision", option.revision, "Branch, tag or commit of a name without @revision")
      ->type_name("NAME");
}

size_t OutputFolderOptions::shard_size() const {
  return max_shard_size ? static_cast<size_t>(*max_shard_size) : CheckpointWriterOptions().max_shard_size;
}

void add_output_folder_options(CLI::App& app, OutputFolderOptions& options) {
  app.add_option("-o,--output", options.output, "The folder to write")->type_name("DIR")->required();
  add_integer(app, "--max-shard-size", options.max_shard_size,
              "Bytes of tensors per file (default: 5000000000)", 1, int64_t{1} << 50);
  app.add_flag("--overwrite,--force", options.force, "Write into a folder that has files in it");
}

CLI::Option* add_kv_cache_type(CLI::App& app, std::string& value, const std::string& description,
                               const std::vector<std::string>& words) {
  return add_choice(
      app, "--kv-cache-type", value, description, words,
      {{"fp32", "f32"}, {"float32", "f32"}, {"fp16", "f16"}, {"float16", "f16"}, {"q8_0", "int8"}});
}

void add_load_options(CLI::App& app, LoadOptions& options) {
  const std::string loading = "Loading";
  std::vector<std::string> dtypes = {"auto"};
  dtypes.insert(dtypes.end(), kFloatTypes.begin(), kFloatTypes.end());
  add_choice(app, "--dtype,--torch-dtype", options.dtype, "Type of float weights", dtypes, kFloatTypeAliases)
      ->group(loading);
  add_choice(app, "--device-map", options.device_map, "Where layers go", {"auto", "cpu"})->group(loading);
  add_choice(app, "--attn-implementation", options.attn_implementation, "Attention kernel",
             {"sdpa", "eager", "flash_attention_2"})
      ->group(loading);
  add_choice(app, "--compute", options.compute, "Arithmetic: as the originals, or the fastest",
             {"f32", "auto"})
      ->group(loading);
  app.add_option("--backend", options.backend,
                 "Kernels: auto, reference, or a name that GPTQConfig and AwqConfig know")
      ->type_name("NAME")
      ->group(loading);
  add_kv_cache_type(app, options.kv_cache_type,
                    "Stored keys and values; auto: f16, and f32 with --compute f32",
                    {"auto", "f32", "f16", "int8"})
      ->group(loading);
  app.add_option("--max-memory", options.max_memory, "Refuse to load more than this: 8GB, cpu=8GB")
      ->type_name("SIZE")
      ->group(loading);
  add_integer(app, "-c,--ctx-size,--max-model-len", options.ctx_size,
              "Longest sequence, in tokens (default: what the model allows)", 1, int64_t{1} << 31)
      ->group(loading);

  const std::string quantizing = "Quantizing while loading";
  add_choice(app, "--quantize", options.quantize, "Short form of the options below", {"nf4", "fp4", "int8"})
      ->group(quantizing);
  app.add_flag("--load-in-4bit", options.load_in_4bit, "bitsandbytes, 4 bits")->group(quantizing);
  add_choice(app, "--bnb-4bit-quant-type", options.bnb_4bit_quant_type, "4-bit code", {"nf4", "fp4"})
      ->group(quantizing);
  app.add_flag("--bnb-4bit-use-double-quant", options.bnb_4bit_use_double_quant,
               "Quantize the scales as well")
      ->group(quantizing);
  add_float_type(app, "--bnb-4bit-compute-dtype", options.bnb_4bit_compute_dtype,
                 "What the original computes 4-bit layers in")
      ->group(quantizing);
  app.add_flag("--load-in-8bit", options.load_in_8bit, "bitsandbytes, LLM.int8")->group(quantizing);
  add_number(app, "--llm-int8-threshold", options.llm_int8_threshold,
             "Activations of this size stay in floating point; 0: none")
      ->group(quantizing);
}

Expected<FromPretrainedOptions> LoadOptions::to_from_pretrained(const std::string& revision) const {
  FromPretrainedOptions out;
  out.device_map = device_map;
  out.dtype = dtype;
  out.attn_implementation = attn_implementation;
  out.revision = revision;
  out.compute = compute == "f32" ? ComputeMode::kF32 : ComputeMode::kAuto;
  out.backend = backend;
  out.kv_cache_type = kv_cache_type;
  out.show_progress = true;
  NIBBLE_RETURN_IF_ERROR(at("--backend", check_backend(backend)));
  if (!max_memory.empty()) {
    const size_t equals = max_memory.find('=');
    if (equals == std::string::npos) {
      out.max_memory["cpu"] = max_memory;
    } else {
      out.max_memory[max_memory.substr(0, equals)] = max_memory.substr(equals + 1);
    }
  }

  Json bnb = Json::object();
  if (!quantize.empty()) {
    if (load_in_4bit || load_in_8bit) {
      return fail(ErrorCode::kInvalidArgument, "--quantize {} and --load-in-{}bit say it twice", quantize,
                  load_in_4bit ? 4 : 8)
          .with_fix("Use one of them.");
    }
    bnb[quantize == "int8" ? "load_in_8bit" : "load_in_4bit"] = true;
    if (quantize != "int8") {
      if (!bnb_4bit_quant_type.empty() && bnb_4bit_quant_type != quantize) {
        return fail(ErrorCode::kInvalidArgument, "--quantize {} contradicts --bnb-4bit-quant-type {}",
                    quantize, bnb_4bit_quant_type)
            .with_fix("Use one of them.");
      }
      bnb["bnb_4bit_quant_type"] = quantize;
    }
  }
  if (load_in_4bit) bnb["load_in_4bit"] = true;
  if (load_in_8bit) bnb["load_in_8bit"] = true;
  if (!bnb_4bit_quant_type.empty()) bnb["bnb_4bit_quant_type"] = bnb_4bit_quant_type;
  if (bnb_4bit_use_double_quant) bnb["bnb_4bit_use_double_quant"] = true;
  if (!bnb_4bit_compute_dtype.empty()) bnb["bnb_4bit_compute_dtype"] = bnb_4bit_compute_dtype;
  if (llm_int8_threshold) bnb["llm_int8_threshold"] = *llm_int8_threshold;
  if (bnb.empty()) return out;
  if (!bnb.contains("load_in_4bit") && !bnb.contains("load_in_8bit")) {
    const bool int8 = llm_int8_threshold.has_value();
    return fail(ErrorCode::kInvalidArgument, "{} says how to quantize, but nothing says to do it",
                int8 ? "--llm-int8-threshold" : "--bnb-4bit-...")
        .with_fix(int8 ? "Add --load-in-8bit." : "Add --load-in-4bit.");
  }
  bnb["quant_method"] = "bitsandbytes";
  NIBBLE_TRY(BitsAndBytesConfig config, BitsAndBytesConfig::from_json(bnb));
  NIBBLE_RETURN_IF_ERROR(config.validate());
  out.quantization_config = std::move(config);
  return out;
}

}  // namespace nibble::cli
