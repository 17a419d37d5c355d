#ifndef NIBBLE_MODELS_CONFIGURE_ARCHITECTURE_H_
#define NIBBLE_MODELS_CONFIGURE_ARCHITECTURE_H_

// What rows of the architecture table make of values of config.json (Architecture::configure).
// kInvalidArgument for values that cannot be, kUnsupported for kinds that no published model is of.

#include "nibble/models/architecture.h"

namespace nibble {

Status configure_biases(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_gemma(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_gemma2(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_opt(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_phi(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_mixtral(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_qwen2_moe(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_qwen3_moe(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_deepseek_v2(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_deepseek_v3(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_mpt(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_granite(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_cohere(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_cohere2(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_smollm3(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_gpt_neox(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_gptj(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_all_biases(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_gpt2(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_bloom(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_falcon(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_stablelm(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_starcoder2(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_olmo(const PretrainedConfig& config, DecoderSpec& spec);
Status configure_glm4(const PretrainedConfig& config, DecoderSpec& spec);

}  // namespace nibble

#endif  // NIBBLE_MODELS_CONFIGURE_ARCHITECTURE_H_
