#!/usr/bin/env python3
"""A float checkpoint (F16, F32) of the Llama family as GGUF files: make_gguf.py FOLDER OUT TYPE...

Writes OUT-TYPE.gguf for each TYPE (Q4_0, Q4_K_M, ...), as llama.cpp's own quantizer makes it. For measuring speed: the
vocabulary has names instead of texts. Needs requirements-llamacpp.txt.
"""
import ctypes
import json
import pathlib
import sys

import gguf
import llama_cpp
import numpy as np
import safetensors.numpy

BLOCK = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name):
    module = name.removesuffix(".weight")
    if module in OUTER:
        return OUTER[module] + ".weight"
    _, _, layer, inner = module.split(".", 3)
    return f"blk.{layer}.{BLOCK[inner]}.weight"


def rotary_order(weight, heads):
    """Transformers rotates the halves of a head, GGUF's Llama neighbours: their rows are interleaved."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_f16(folder, out):
    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"<{i}>" for i in range(config["vocab_size"])])
    writer.add_token_types([gguf.TokenType.CONTROL] * config["vocab_size"])
    writer.add_token_merges(["a b"])
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in safetensors.numpy.load_file(file).items():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                tensor = rotary_order(tensor, heads if "q_proj" in name else kv_heads)
            writer.add_tensor(gguf_name(name), tensor.astype(np.float32 if tensor.ndim == 1 else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source, out, kind):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + kind)
    if llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)) != 0:
        sys.exit(f"llama.cpp cannot write {out}")


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    folder, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    f16 = out.with_name(out.name + "-F16.gguf")
    write_f16(folder, f16)
    for kind in sys.argv[3:]:
        quantize(f16, out.with_name(f"{out.name}-{kind}.gguf"), kind)
    f16.unlink()


if __name__ == "__main__":
    main()
