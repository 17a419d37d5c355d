"""safetensors files with the standard library alone."""
import json
import pathlib
import struct


def header(path):
    """name -> {dtype, shape, data_offsets} of one file, and where its tensors begin."""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        table = json.loads(file.read(size))
    table.pop("__metadata__", None)
    return table, 8 + size


def folder_tensors(folder):
    """name -> {dtype, shape, data_offsets} of all files of a checkpoint."""
    tensors = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        tensors.update(header(path)[0])
    return tensors


def tensor_bytes(folder):
    """Bytes of tensors, without headers and configuration. Takes tests/data's cut files too: the
    header is in front of the cut."""
    paths = [*pathlib.Path(folder).glob("*.safetensors"), *pathlib.Path(folder).glob("*.safetensors.cut")]
    return sum(max(t["data_offsets"][1] for t in header(path)[0].values()) for path in paths)


def read(path):
    """name -> (dtype, shape, bytes)"""
    table, begin = header(path)
    data = pathlib.Path(path).read_bytes()
    return {name: (t["dtype"], t["shape"], data[begin + t["data_offsets"][0]:begin + t["data_offsets"][1]])
            for name, t in table.items()}


def write(path, tensors):
    """The inverse of read()."""
    table, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data)


def int32(rows):
    """Rows of token ids as a tensor for write()."""
    flat = [value for row in rows for value in row]
    return "I32", [len(rows), len(rows[0])], struct.pack(f"<{len(flat)}i", *flat)
