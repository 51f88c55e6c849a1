"""GGUF files from a benchmark folder: written in F16, quantised by llama.cpp's own code.

Runs in the peers' environment: ``python -m benchmarks.gguf_files '<shape as JSON>' HF OUT``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_FILE_TYPES = {
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
}


def gguf_name(name: str) -> str:
    """A tensor's GGUF name from its Hugging Face name."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{_LAYER_NAMES[module]}.{kind}"


def rope_order(weight: np.ndarray, heads: int) -> np.ndarray:
    """Interleave the halves of each head, the order in which GGUF's llama keeps them."""
    shape = weight.shape
    halves = weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:])
    return halves.swapaxes(1, 2).reshape(shape)


def read_bf16(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors of a bfloat16 safetensors file as float32; numpy knows no bfloat16."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            file.seek(8 + size + begin)
            raw = np.frombuffer(file.read(end - begin), np.uint16)
            wide = (raw.astype(np.uint32) << 16).view(np.float32)
            yield name, wide.reshape(entry["shape"])


def write_f16(shape: dict[str, Any], folder: Path, out: Path) -> None:
    """The unquantised file."""
    family = shape["family"]
    writer = gguf.GGUFWriter(str(out), family)
    writer.add_context_length(2048)
    writer.add_embedding_length(shape["hidden"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["intermediate"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_layer_norm_rms_eps(shape["norm_eps"])
    writer.add_rope_freq_base(shape["rope_theta"])
    writer.add_rope_dimension_count(shape["hidden"] // shape["heads"])
    writer.add_vocab_size(shape["vocab"])
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for name, weight in read_bf16(folder / "model.safetensors"):
        value = weight
        if family == "llama" and "q_proj" in name:
            value = rope_order(weight, shape["heads"])
        if family == "llama" and "k_proj" in name:
            value = rope_order(weight, shape["kv_heads"])
        writer.add_tensor(gguf_name(name), value.astype(np.float16) if value.ndim > 1 else value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantise(source: Path, out: Path, kind: str, threads: int) -> None:
    """What the llama-quantize program does."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = _FILE_TYPES[kind]
    part = out.with_suffix(".part")
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(part).encode(), params)
    if code != 0:
        raise SystemExit(f"llama_model_quantize to {kind} returned {code}")
    part.replace(out)


def main() -> None:
    """Make whatever file is missing."""
    shape, folder, out = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    missing = [kind for kind in _FILE_TYPES if not (out / f"{kind}.gguf").is_file()]
    if not missing:
        return
    f16 = out / "f16.gguf"
    write_f16(shape, folder, f16)
    for kind in missing:
        quantise(f16, out / f"{kind}.gguf", kind, 2)
    f16.unlink()


if __name__ == "__main__":
    main()
