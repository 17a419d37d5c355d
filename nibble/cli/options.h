#ifndef NIBBLE_CLI_OPTIONS_H_
#define NIBBLE_CLI_OPTIONS_H_

// Options that several commands share, and typed ways to declare one. Numbers are read by our own
// rules: decimal, in range, nothing behind them; the message says what was expected.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "nibble/base/thread_pool.h"
#include "nibble/models/auto_model.h"

namespace nibble::cli {

// A whole number in [min, max], and one with a fraction.
CLI::Option* add_integer(CLI::App& app, const std::string& names, std::optional<int64_t>& value,
                         const std::string& description, int64_t min, int64_t max);
CLI::Option* add_number(CLI::App& app, const std::string& names, std::optional<double>& value,
                        const std::string& description);

// One of a few words. `aliases` maps what people type by habit to the word that is meant.
CLI::Option* add_choice(CLI::App& app, const std::string& names, std::string& value,
                        const std::string& description, const std::vector<std::string>& words,
                        const std::map<std::string, std::string>& aliases = {});

// --kv-cache-type: of "auto", "f32", "f16" and "int8" those that a command knows.
CLI::Option* add_kv_cache_type(CLI::App& app, std::string& value, const std::string& description,
                               const std::vector<std::string>& words);

// The words of an option that add_choice() made; empty for any other.
std::vector<std::string> words_of(const CLI::Option& option);

// float32, float16 or bfloat16, also as f32, fp16, half...
CLI::Option* add_float_type(CLI::App& app, const std::string& names, std::string& value,
                            const std::string& description);

// Every command has these.
struct CommonOptions {
  bool json = false;
  bool verbose = false;
  bool quiet = false;
  std::optional<int64_t> threads;

  size_t num_threads() const { return static_cast<size_t>(threads.value_or(0)); }
};
// `json`: what --json prints, for the help. Also sets the log level once the options are parsed.
void add_common_options(CLI::App& app, CommonOptions& options, const std::string& json);

// MODEL or -m.
struct ModelOption {
  std::string model;
  std::string revision;

  Status check() const;  // kInvalidArgument where no model was named
};
void add_model_option(CLI::App& app, ModelOption& option);

// Where a command writes a model.
struct OutputFolderOptions {
  std::string output;
  std::optional<int64_t> max_shard_size;
  bool force = false;

  size_t shard_size() const;  // bytes
};
void add_output_folder_options(CLI::App& app, OutputFolderOptions& options);

// How a model is loaded: the words of from_pretrained, and the short forms people type.
struct LoadOptions {
  std::string dtype = "auto";
  std::string device_map = "auto";
  std::string attn_implementation = "sdpa";
  std::string compute = "auto";
  std::string backend = "auto";
  std::string kv_cache_type = "auto";
  std::string max_memory;  // "8GB" or "cpu=8GB"
  std::string quantize;    // nf4, fp4, int8
  bool load_in_4bit = false;
  bool load_in_8bit = false;
  std::string bnb_4bit_quant_type;
  bool bnb_4bit_use_double_quant = false;
  std::string bnb_4bit_compute_dtype;
  std::optional<double> llm_int8_threshold;
  std::optional<int64_t> ctx_size;

  // kInvalidArgument for what contradicts itself.
  Expected<FromPretrainedOptions> to_from_pretrained(const std::string& revision) const;
};
void add_load_options(CLI::App& app, LoadOptions& options);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_OPTIONS_H_
