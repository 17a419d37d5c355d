"""The float models that are quantized: those of tests/data, put together in a temporary folder."""
import json
import pathlib
import random
import shutil

import tensors

DATA = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


class Sources:
    def __init__(self, work):
        self.work = pathlib.Path(work)

    def model(self, name):
        """The folder of a source: "tiny-llama"; "tiny-llama-untied", the same function with a head of
        its own; "qwen2" and other architectures; "qwen2.v4", the same with a configuration as
        Transformers 4 wrote it."""
        folder = self.work / "sources" / name
        if not folder.exists():
            making = folder.with_name(folder.name + ".part")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            if name == "tiny-llama":
                assemble(DATA / "models" / name, making)
            elif name == "tiny-llama-untied":
                untie(self.model("tiny-llama"), making)
            else:
                copy_architecture(name, making)
            making.rename(folder)
        return folder

    def calibration(self, name):
        """A file of token ids that the source's vocabulary has."""
        if name.startswith("tiny-llama"):
            return DATA / "calibration-tokens.safetensors"
        return self._random_ids("calibration", vocab_size(self.model(name)), rows=16, length=64)

    def prompt(self, name):
        return self._random_ids("prompt", vocab_size(self.model(name)), rows=2, length=32)

    def _random_ids(self, use, size, rows, length):
        path = self.work / f"{use}-{size}.safetensors"
        if not path.exists():
            choose = random.Random(f"{use} {size}")
            ids = [[choose.randrange(8, size) for _ in range(length)] for _ in range(rows)]
            tensors.write(path, {"input_ids": tensors.int32(ids)})
        return path


def architectures():
    return sorted(path.parent.name for path in (DATA / "architectures").glob("*/config.json"))


def vocab_size(folder):
    return json.loads((folder / "config.json").read_text())["vocab_size"]


def assemble(cut_folder, out):
    """tests/data keeps the embedding that all its models share once: put it back."""
    for path in cut_folder.iterdir():
        if path.suffix == ".cut":
            data = path.read_bytes()
            offset = json.loads((cut_folder / "cut.json").read_text())["offset"]
            whole = data[:offset] + (DATA / "embedding.bin").read_bytes() + data[offset:]
            (out / path.stem).write_bytes(whole)
        elif path.name != "cut.json":
            shutil.copy(path, out)


def untie(tied, out):
    """GPTQModel quantizes no head that shares its weight with the embedding."""
    shutil.copytree(tied, out, dirs_exist_ok=True)
    weights = tensors.read(tied / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    tensors.write(out / "model.safetensors", weights)
    config = json.loads((tied / "config.json").read_text())
    config["tie_word_embeddings"] = False
    (out / "config.json").write_text(json.dumps(config, indent=2))


def copy_architecture(name, out):
    architecture, _, dialect = name.partition(".")
    folder = DATA / "architectures" / architecture
    config = json.loads((folder / ("config.v4.json" if dialect == "v4" else "config.json")).read_text())
    (out / "config.json").write_text(json.dumps(with_all_experts(config), indent=2))
    for file in folder.glob("model*.safetensors*"):  # some in shards, with an index
        shutil.copy(file, out)
    for file in TOKENIZER_FILES:  # GPTQModel loads no folder without a tokenizer; its ids are not used
        shutil.copy(DATA / "models" / "tiny-llama" / file, out)


def with_all_experts(config):
    """Every token goes to every expert: a rounding that exchanged two of nearly the same probability would
    make differences that say nothing about a file."""
    experts = next((config[key] for key in ("n_routed_experts", "num_experts", "num_local_experts") if config.get(key)), None)
    if experts:
        config["num_experts_per_tok"] = experts
        if config.get("n_group"):
            config["topk_group"] = config["n_group"]
    return config
