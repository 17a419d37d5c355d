"""Comparisons of an original library's logits with those of `nibble logits --compute f32`."""
import os
import subprocess
import tempfile

import torch
from safetensors.torch import load_file, save_file

# Tokens before the greedy continuation, and of it. Together they stay within the 24 positions at which
# llama_rope_dynamic starts to stretch its rotary base, and the first alone is beyond the 16 positions
# at which phi3_longrope_long changes its factors: both models read cached keys by other rules by design.
PROMPT, NEW = 18, 5

# Largest difference of a logit, as a share of the logits' standard deviation.
#
# float32: the weights are the same numbers, so only the order of sums differs. The models of tests/data
# run in float32 and in float64 differ by up to 1.2e-5 (llama_rope_llama3); tenfold that. A weight that
# was rounded differently, (q - z) * s in float16 against float32, would show as 6e-3.
#
# float16 and bfloat16: every operation rounds to half an ulp, 2^-11 or 2^-8 relative, with a root mean
# square of 1/sqrt(3) of it. A block has about 12 of them in a row, so after 3 blocks the logits are
# off by 6 * 2^-11 / sqrt(3) = 1.7e-3, the largest of 10^5 values by 4.4 times that: 7.4e-3 in float16
# and 0.06 in bfloat16. Eight times that, because the softmax of models with random weights enlarges
# errors. A missing or misread module gives 1 or more.
#
# int8: LLM.int8 rounds activations to 1/127 of the largest one in a row, and a last-bit difference before
# that moves a code now and then: one product of 64 or more by one step, 0.4 % of the output each; a few of
# them meet. As loaded, the activations are float16 or bfloat16, so that most codes near a border move and
# values near the threshold leave the 8 bits altogether: two independent roundings of every activation,
# sqrt(2) * 3.5 / (127 * sqrt(12)) = 1.1 % for each of 4 linears in a row, 4 % after 3 blocks, the largest
# of 10^5 values 17 %; four times that.
TOLERANCE = {"float32": 1.2e-4, "float16": 0.06, "bfloat16": 0.48, "int8": 0.1, "int8 as loaded": 0.7}


def nibble_logits(request, ids):
    """float32 [batch, length, vocab]"""
    with tempfile.TemporaryDirectory() as work:
        inputs, outputs = os.path.join(work, "ids.safetensors"), os.path.join(work, "logits.safetensors")
        save_file({"input_ids": ids.to(torch.int32).contiguous()}, inputs)
        subprocess.run([request["nibble"], "logits", request["folder"], "--input-ids", inputs, "-o", outputs,
                        "--compute", "f32", "-t", "2", "-q"], check=True, stdout=subprocess.DEVNULL)
        return load_file(outputs)["logits"]


def compare(logits, reference, arithmetic, what):
    difference = ((logits.float() - reference).abs().max() / reference.std()).item()
    tolerance = TOLERANCE[arithmetic]
    return {"what": what, "arithmetic": arithmetic, "difference": difference, "tolerance": tolerance,
            "passed": difference <= tolerance}


def forward(model, ids):
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def passed(what, note):
    return {"what": what, "arithmetic": "", "difference": 0.0, "tolerance": 0.0, "passed": True, "note": note}


def check_logits(request, model, arithmetic, what):
    ids = load_file(request["prompt"])["input_ids"].long()
    return compare(forward(model, ids), nibble_logits(request, ids), arithmetic, what)


def check_greedy(request, model, arithmetic, what):
    """Each token of the library's greedy continuation must be Nibble's best one, or so close to it that
    two differences within the tolerance could have exchanged them."""
    prompt = load_file(request["prompt"])["input_ids"][:1, :PROMPT].long()
    model.generation_config.eos_token_id = None  # a token like the others: min_new_tokens would forbid it
    with torch.no_grad():
        out = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                             max_new_tokens=NEW, pad_token_id=0)
    reference = nibble_logits(request, out)[0]
    steps = reference[PROMPT - 1:-1]
    chosen = steps.gather(1, out[0, PROMPT:, None])[:, 0]
    gap = ((steps.max(-1).values - chosen).max() / reference.std()).item()
    exact = int((steps.argmax(-1) == out[0, PROMPT:]).sum())
    tolerance = 2 * TOLERANCE[arithmetic]
    return {"what": what, "arithmetic": arithmetic, "difference": gap, "tolerance": tolerance,
            "passed": out.shape[1] == PROMPT + NEW and gap <= tolerance, "same_tokens": exact}
