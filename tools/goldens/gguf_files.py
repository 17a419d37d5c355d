#!/usr/bin/env python3
"""Tiny random models as llama.cpp's own converter writes them, for tests/data/gguf.

  tools/goldens/gguf_files.py OUT CONVERTER LIBLLAMA [NAME...]

CONVERTER is llama.cpp's convert_hf_to_gguf.py, LIBLLAMA its libllama.so, which quantizes. Needs torch, transformers,
sentencepiece, gguf. A model is rounded to bfloat16, saved, read again in float32 and run with eager attention; the
same folder is converted. Where the file is quantized, the model has its weights as gguf.quants expands them, rounded
to float16, and model.safetensors holds the first rows of each. Tokenizers are trained on the text below.
"""
import ctypes
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zlib

import gguf
import numpy
import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import AutoModelForCausalLM, GemmaTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.tokenization_utils_base import generate_merges

VOCAB = 384
TEXT = """The first bridge over the river was built of wood, and it stood for a hundred years before the flood.
A second bridge, made of stone, was finished in the summer; the third one was never built at all.
Water runs under the bridges, and over the stones that the older builders left there.
In the winter the river is still, and the people of the village walk over the ice to the other side.
\tprint("the bridge")\n\t\treturn the river\n
"""
TEXTS = [
    "The first bridge was built",
    "  the river  and   the    stones",
    "the\n\nriver\n\n\nand\tthe\t\tbridge \n",
    "Zürich 東京 \U0001F309 bridge42",
    "",
    " ",
    "<start_of_turn>user\nthe river<end_of_turn>\n",
    "<|user|>\n the river<|end|>\n<|assistant|>  \nwas",
    "<s> of</s>  wood<unk> <|endoftext|> and",
]

GEMMA = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=1, head_dim=16, max_position_embeddings=512, rms_norm_eps=1e-5,
             pad_token_id=0, eos_token_id=1, bos_token_id=2)
PHI3 = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=512, original_max_position_embeddings=16,
            rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=1, eos_token_id=VOCAB - 4,
            pad_token_id=VOCAB - 4)

# name: options of the converter, config. What GGUF files cannot say (query_pre_attn_scalar, the period of the
# sliding layers) is what their readers assume.
MODELS = {
    "gemma": ("--outtype f32", dict(GEMMA, model_type="gemma")),
    "gemma2": ("--outtype f32", dict(GEMMA, model_type="gemma2", num_key_value_heads=2, query_pre_attn_scalar=16,
                           attn_logit_softcapping=5.0, final_logit_softcapping=8.0, sliding_window=8)),
    # Rows of 256 are in blocks of 256, those of 64 in blocks of 32.
    "gemma2_q4_k_m": ("--outtype f32", dict(GEMMA, model_type="gemma2", hidden_size=256, num_hidden_layers=1,
                                  num_key_value_heads=2, query_pre_attn_scalar=16, attn_logit_softcapping=50.0,
                                  final_logit_softcapping=30.0, sliding_window=8)),
    # Seven layers: the sixth sees all.
    "gemma3": ("--outtype bf16", dict(GEMMA, model_type="gemma3_text", num_hidden_layers=7, intermediate_size=32,
                            query_pre_attn_scalar=16, sliding_window=8, rope_theta=1000000.0,
                            rope_local_base_freq=10000.0, rope_scaling=dict(rope_type="linear", factor=8.0))),
    # Three quarters of a head are rotated, as in Phi-4 mini; no window.
    "phi3_longrope": ("--outtype f32", dict(
        PHI3, model_type="phi3", sliding_window=None, partial_rotary_factor=0.75,
        rope_scaling=dict(type="longrope", short_factor=[1.0, 1.05, 1.1, 1.15, 1.2, 1.3],
                          long_factor=[1.0, 2.5, 4.0, 5.5, 7.0, 8.5]))),
    # As Phi-3 mini 4k: a window in every layer, no scaling. In several files.
    "phi3_window": ("--outtype f16 --split-max-tensors 6", dict(PHI3, model_type="phi3", sliding_window=8, tie_word_embeddings=True)),
}


def randomise(model, seed):
    scale = (32 / model.config.hidden_size) ** 0.5
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(model.named_parameters()):
            values = torch.randn(tensor.shape, generator=generator)
            if "norm" in name:
                tensor.copy_((0 if "gemma" in model.config.model_type else 1) + 0.2 * values)
            else:
                tensor.copy_(values * scale * (0.35 if "embed" in name else 0.25))


def train(folder, **options):
    text = folder / "text"
    text.write_text(TEXT)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), model_type="bpe", byte_fallback=True,
        split_digits=True, allow_whitespace_only_pieces=True, remove_extra_whitespaces=False,
        normalization_rule_name="identity", num_threads=1, minloglevel=2, **options)
    for name in ("text", "tokenizer.vocab"):
        (folder / name).unlink()


# Ids, roles and flags are those of the published tokenizers: pad, eos, bos, unk, ...
def make_gemma_tokenizer(folder):
    runs = [character * count for character in ("\n", "\u2581") for count in range(2, 6)]
    train(folder, vocab_size=VOCAB, add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>",
          eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>", control_symbols=["<start_of_turn>", "<end_of_turn>"],
          user_defined_symbols=runs + ["<table>"])
    sp = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    added = {sp.PieceToId(text): AddedToken(text, normalized=False, special=text.startswith("<") and text != "<table>")
             for text in ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<table>"] + runs}
    # As Transformers converts such a model: the byte of the tab becomes the tab.
    pieces = ["\t" if sp.IdToPiece(i) == "<0x09>" else sp.IdToPiece(i) for i in range(sp.GetPieceSize())]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = generate_merges(vocab, {piece: 0.0 if piece == "\t" else sp.GetScore(i)
                                     for i, piece in enumerate(pieces)})
    tokenizer = GemmaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)
    tokenizer.add_tokens([token for token in added.values() if not token.special])
    tokenizer.add_tokens([token for token in added.values() if token.special], special_tokens=True)
    return tokenizer.backend_tokenizer, added, dict(
        tokenizer_class="GemmaTokenizer", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>",
        add_bos_token=True, chat_template="{% for m in messages %}{{ '<start_of_turn>' + m['role'] + '\n' + "
        "m['content'] + '<end_of_turn>\n' }}{% endfor %}")


# The tokenizer.json that Phi-3 is published with: Llama's, and tokens that take the white space behind them.
def make_phi3_tokenizer(folder):
    train(folder, vocab_size=VOCAB - 4, unk_id=0, bos_id=1, eos_id=2)
    path = str(folder / "tokenizer.model")
    sp = sentencepiece.SentencePieceProcessor(model_file=path)
    pieces = [sp.IdToPiece(i) for i in range(sp.GetPieceSize())]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = generate_merges(vocab, {piece: sp.GetScore(i) for i, piece in enumerate(pieces)})
    texts = ["<unk>", "<s>", "</s>"]
    added = {i: AddedToken(text, normalized=False, special=text != "</s>", rstrip=text == "</s>")
             for i, text in enumerate(texts)}
    for i, text in enumerate(["<|endoftext|>", "<|assistant|>", "<|user|>", "<|end|>"]):
        added[len(pieces) + i] = AddedToken(text, normalized=False, special=True, rstrip=text != "<|endoftext|>")
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    for index in sorted(added):
        (tokenizer.add_special_tokens if added[index].special else tokenizer.add_tokens)([added[index]])
        assert tokenizer.token_to_id(added[index].content) == index
    return tokenizer, added, dict(tokenizer_class="LlamaTokenizer", bos_token="<s>", eos_token="<|endoftext|>",
                                  unk_token="<unk>", pad_token="<|endoftext|>", add_bos_token=True)


# tokenizer_config.json for the converter, and what the original makes of the texts.
def write_tokenizer(folder, out, make_tokenizer):
    tokenizer, added, config = make_tokenizer(folder)
    flags = ("content", "lstrip", "rstrip", "normalized", "single_word", "special")
    config["added_tokens_decoder"] = {str(i): {flag: getattr(token, flag) for flag in flags}
                                      for i, token in sorted(added.items())}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    cases = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        cases.append(dict(text=text, ids=ids, decoded=tokenizer.decode(ids, skip_special_tokens=True)))
    (out / "tokens.json").write_text(json.dumps(cases, indent=1) + "\n")


# The beginning of llama_model_quantize_params, with room for what newer versions have behind it.
class QuantizeParams(ctypes.Structure):
    _fields_ = [("nthread", ctypes.c_int32), ("ftype", ctypes.c_int), ("output_type", ctypes.c_int),
                ("embedding_type", ctypes.c_int), ("flags", ctypes.c_bool * 6), ("more", ctypes.c_uint64 * 16)]


def quantize(libllama, source, out):
    mostly_q4_k_m = 15
    library = ctypes.CDLL(libllama)
    library.llama_model_quantize_default_params.restype = QuantizeParams
    library.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(QuantizeParams)]
    library.llama_backend_init()
    params = library.llama_model_quantize_default_params()
    params.nthread, params.ftype = 1, mostly_q4_k_m
    assert library.llama_model_quantize(bytes(source), bytes(out), params) == 0


# The weights of the model become those of the file, and model.safetensors their first rows.
def take_weights(path, model, arch, out):
    names = gguf.get_tensor_name_map(arch, model.config.num_hidden_layers)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    rows = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            tensor = stored[names.get_name(name, try_suffixes=(".weight",))]
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
            values = torch.from_numpy(values.copy()) - (1 if name.endswith("norm.weight") else 0)
            half = values.reshape(parameter.shape).to(torch.float16)
            parameter.copy_(half.float())
            rows[name] = half[:4].contiguous() if half.dim() > 1 else half
    save_file(rows, out, metadata={"format": "pt"})


def make(name, out, converter, libllama):
    options, keys = MODELS[name]
    seed = 9000 + zlib.crc32(name.encode()) % 100000
    config = CONFIG_MAPPING[keys["model_type"]].from_dict(json.loads(json.dumps(keys)))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    randomise(model, seed)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        model.to(torch.bfloat16).save_pretrained(folder)
        write_tokenizer(folder, out, make_gemma_tokenizer if "gemma" in name else make_phi3_tokenizer)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        subprocess.run([sys.executable, converter, folder, "--outfile", out / "model.gguf",
                        "--model-name", f"Tiny {name}", *options.split()], check=True, stdout=subprocess.DEVNULL)
        for file in ("config.json", "model.safetensors"):
            shutil.copy(folder / file, out / file)
    if name.endswith("_q4_k_m"):
        whole = (out / "model.gguf").rename(out / "whole.gguf")
        quantize(libllama, whole, out / "model.gguf")
        whole.unlink()
        take_weights(out / "model.gguf", model, gguf.MODEL_ARCH.GEMMA2, out / "model.safetensors")

    generator = torch.Generator().manual_seed(seed + 1)
    ids = torch.randint(0, VOCAB, (2, 40), generator=generator)
    few = torch.randint(0, VOCAB, (1, 8), generator=generator)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
        few_logits = model(input_ids=few, use_cache=False).logits
        greedy = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12,
                                do_sample=False, eos_token_id=None, pad_token_id=0)[:, ids.shape[1]:]
    save_file({"input_ids": ids.to(torch.int32), "logits": logits[:, -10:].float().contiguous(),
               "logits_positions": torch.arange(30, 40, dtype=torch.int32),
               "greedy": greedy.to(torch.int32).contiguous(),
               "few_input_ids": few.to(torch.int32), "few_logits": few_logits.float().contiguous()},
              out / "goldens.safetensors", metadata={"format": "pt"})
    for file in out.iterdir():
        file.chmod(0o644)
    sizes = ", ".join(f"{file.name} {file.stat().st_size}" for file in sorted(out.iterdir()))
    print(f"{name}: {sizes}; standard deviation {logits.std():.2f}, {logits.argmax(-1).unique().numel()} tokens")


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    for name in sys.argv[4:] or MODELS:
        make(name, pathlib.Path(sys.argv[1]) / name, sys.argv[2], sys.argv[3])


if __name__ == "__main__":
    main()
