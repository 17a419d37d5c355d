#!/usr/bin/env python3
"""Greedy decode speed of Transformers + bitsandbytes NF4 on the CPU, as one line of JSON.

    peer_transformers.py MODEL_FOLDER [--tokens 128] [--threads 2]

MODEL_FOLDER is a float checkpoint; it is quantized while loading, with bfloat16 compute, the fastest
that bitsandbytes offers on a CPU. The time of the prompt is taken out: (1 + tokens) new tokens less
the time for one. Needs: pip install torch transformers bitsandbytes accelerate
"""
import argparse
import json
import time

import torch
import transformers
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

PROMPT_TOKENS = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                                bnb_4bit_compute_dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16, device_map="cpu",
                                                 quantization_config=config).eval()
    torch.manual_seed(0)
    prompt = torch.randint(300, min(8000, model.config.vocab_size), (1, PROMPT_TOKENS))

    def seconds(new_tokens):
        start = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                                 min_new_tokens=new_tokens, max_new_tokens=new_tokens, pad_token_id=0)
        assert out.shape[1] == PROMPT_TOKENS + new_tokens
        return time.perf_counter() - start

    seconds(4)  # warm up
    one = min(seconds(1) for _ in range(2))
    rate = args.tokens / (seconds(args.tokens + 1) - one)
    print(json.dumps({"generation_tokens_per_second": rate, "transformers": transformers.__version__,
                      "torch": torch.__version__}))


if __name__ == "__main__":
    main()
