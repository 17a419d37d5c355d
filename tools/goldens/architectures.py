#!/usr/bin/env python3
"""Tiny random models with the logits of Transformers, for tests/data/architectures.

  tools/goldens/architectures.py OUT [NAME...]     needs torch and transformers

A model is rounded to bfloat16, saved, read again in float32 and run with eager attention (but see ATTENTION). `config.json` is what
Transformers 5 writes, `config.v4.json` has the keys of older checkpoints and must give the same logits. The first
models of the folder (README there) were made in the same way by an older script.
"""
import json
import pathlib
import shutil
import sys
import tempfile
import zlib

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

DEEPSEEK = dict(
    vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0,
    tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0, kv_lora_rank=32,
    qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=8, n_routed_experts=6, num_experts_per_tok=3,
    moe_intermediate_size=32, first_k_dense_replace=1, n_group=3, topk_group=2)


def yarn(mscale, mscale_all_dim):
    return dict(type="yarn", factor=8.0, original_max_position_embeddings=32, beta_fast=32, beta_slow=1,
                mscale=mscale, mscale_all_dim=mscale_all_dim)


MODELS = {
    # As DeepSeek-V2 itself: groups of experts, and both scales of YaRN, which cancel in one place only.
    "deepseek_v2_groups": dict(
        DEEPSEEK, model_type="deepseek_v2", q_lora_rank=32, n_shared_experts=2, topk_method="group_limited_greedy",
        routed_scaling_factor=4.0, norm_topk_prob=False, rope_scaling=yarn(0.707, 0.707)),
    # Two scales that differ, halves rotated instead of pairs, weights of experts as they are, queries without
    # a short vector, and behind the model's own layers one that predicts a token more.
    "deepseek_v3_halves": dict(
        DEEPSEEK, model_type="deepseek_v3", q_lora_rank=None, n_shared_experts=1, routed_scaling_factor=2.0,
        norm_topk_prob=False, rope_interleave=False, rope_scaling=yarn(1.2, 0.6), num_nextn_predict_layers=1),
    # Six heads, whose slopes are no powers of two, and more tokens than bfloat16 counts one by one.
    "falcon_rw_alibi_long": dict(
        model_type="falcon", vocab_size=256, hidden_size=96, ffn_hidden_size=64, num_hidden_layers=2, num_attention_heads=6,
        alibi=True, multi_query=False, new_decoder_architecture=False, parallel_attn=False, bias=True, bos_token_id=1,
        eos_token_id=2, max_position_embeddings=512),
}
LENGTH = {"falcon_rw_alibi_long": 330}  # of the compared sequences; 40 by default
# Falcon's eager code adds ALiBi twice, once in the mask and once to the scores; this is the default.
ATTENTION = {"falcon_rw_alibi_long": "sdpa"}


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = sorted(model.named_parameters()) + sorted(model.named_buffers())
    with torch.no_grad():
        for name, tensor in tensors:
            values = torch.randn(tensor.shape, generator=generator)
            if name.endswith("e_score_correction_bias"):
                tensor.copy_(0.1 * values)
            elif "inv_freq" in name:
                continue
            elif "norm" in name:
                tensor.copy_(1 + 0.2 * values)
            else:
                tensor.copy_(values * (0.35 if "embed" in name else 0.25))


# The layer behind the last one as DeepSeek-V3 stores it: a block of its own (here without its experts, to be
# small), and what joins it to the model.
def add_prediction_layer(folder, layers, seed):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    last, extra = f"model.layers.{layers - 1}.", f"model.layers.{layers}."
    generator = torch.Generator().manual_seed(seed)
    added = {extra + name.removeprefix(last): tensor for name, tensor in tensors.items()
             if name.startswith(last) and ".experts." not in name}
    embedding = tensors["model.embed_tokens.weight"]
    hidden = embedding.shape[1]
    for name, shape in {"enorm.weight": [hidden], "hnorm.weight": [hidden], "eh_proj.weight": [hidden, 2 * hidden],
                        "shared_head.norm.weight": [hidden], "shared_head.head.weight": list(embedding.shape),
                        "embed_tokens.weight": list(embedding.shape)}.items():
        added[extra + name] = embedding.new_zeros(shape)
    for tensor in added.values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    save_file({**load_file(path), **added}, path, metadata={"format": "pt"})


def open_model(folder, name):
    logging.set_verbosity_error()  # it names every tensor of a layer that it leaves out
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=ATTENTION.get(name, "eager"),
        experts_implementation="eager").eval()


def make(name, keys, out):
    seed = 7000 + zlib.crc32(name.encode()) % 100000
    config = CONFIG_MAPPING[keys["model_type"]].from_dict(json.loads(json.dumps(keys)))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    randomise(model, seed)
    shutil.rmtree(out, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)

    length = LENGTH.get(name, 40)
    ids = torch.randint(0, keys["vocab_size"], (2, length), generator=torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        model = open_model(out, name)
        logits = model(input_ids=ids, use_cache=False).logits
        greedy = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12,
                                do_sample=False, eos_token_id=None, pad_token_id=0)[:, ids.shape[1]:]
        again = {}
        if keys.get("num_nextn_predict_layers"):
            add_prediction_layer(out, keys["num_hidden_layers"], seed + 2)
            again["with the layer that predicts more"] = open_model(out, name)(input_ids=ids, use_cache=False).logits
        older = {"architectures": [type(model).__name__], **keys, "torch_dtype": "bfloat16",
                 "transformers_version": "4.46.0"}
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(out, copy, dirs_exist_ok=True)
            (pathlib.Path(copy) / "config.json").write_text(json.dumps(older))
            again["with the older config"] = open_model(copy, name)(input_ids=ids, use_cache=False).logits
    for what, other in again.items():
        assert torch.equal(other, logits), f"{name}: other logits {what}"
    (out / "config.v4.json").write_text(json.dumps(older, indent=2) + "\n")
    save_file({"input_ids": ids.to(torch.int32), "logits": logits[:, -10:].float().contiguous(),
               "logits_positions": torch.arange(length - 10, length, dtype=torch.int32),
               "greedy": greedy.to(torch.int32).contiguous()}, out / "goldens.safetensors", metadata={"format": "pt"})
    for file in out.iterdir():
        file.chmod(0o644)
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{name}: {size} bytes, standard deviation {logits.std():.2f}, {logits.argmax(-1).unique().numel()} tokens")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    for name in sys.argv[2:] or MODELS:
        make(name, MODELS[name], pathlib.Path(sys.argv[1]) / name)


if __name__ == "__main__":
    main()
