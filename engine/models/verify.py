"""Compares a converted model with transformers on one prompt, both in fp32.

The exporter does not refuse every model that it gets wrong (a sliding window left out, a
norm of an unusual kind), so no conversion is kept before this has passed.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TOLERANCE = 1e-3  # observed: below 1e-6 on small models; a wrong export is off by 0.1 or more
PROMPT_TOKENS = 48
WINDOW_MARGIN = 16
LONGEST_PROMPT = 640

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reference:
    """What transformers computes for one prompt.

    Attributes:
        tokens: int64 [count]. logits: [vocab], after the last token.
        windows: per layer, how many tokens back attention reaches; -1 without a limit.
    """

    tokens: Ints
    logits: Floats
    windows: tuple[int, ...]


def reference(folder: Path) -> Reference:
    """Run the checkpoint in ``folder`` through transformers, then free it again."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=torch.float32,
        attn_implementation="eager",
        local_files_only=True,
        trust_remote_code=False,
    ).eval()
    windows = attention_windows(model.config)
    count = PROMPT_TOKENS
    if max(windows) > 0:
        count = min(max(count, max(windows) + WINDOW_MARGIN), LONGEST_PROMPT)
    count = min(count, model.config.max_position_embeddings)
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, count)
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens)[None], use_cache=False).logits[0, -1]
    found = Reference(tokens, logits.float().numpy().copy(), windows)
    del model, logits
    gc.collect()
    return found


def attention_windows(config: Any) -> tuple[int, ...]:
    """Per layer, the reach of attention that transformers applies for ``config``."""
    layers = int(config.num_hidden_layers)
    window = getattr(config, "sliding_window", None)
    if not window or getattr(config, "use_sliding_window", True) is False:
        return (-1,) * layers
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * layers
    return tuple(int(window) if kind == "sliding_attention" else -1 for kind in kinds)


def last_logits(model: Path, tokens: Ints, *, layers: int, kv_heads: int, head_dim: int) -> Floats:
    """Logits [vocab] after ``tokens``, from a model in serving form on onnxruntime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    empty = np.zeros((1, kv_heads, len(tokens), head_dim), np.float32)
    feeds: dict[str, npt.NDArray[Any]] = {
        f"past_key_values.{layer}.{part}": empty
        for layer in range(layers)
        for part in ("key", "value")
    }
    feeds["input_ids"] = tokens[None]
    feeds["seqlens_k"] = np.array([len(tokens) - 1], np.int32)
    feeds["total_sequence_length"] = np.array(len(tokens), np.int32)
    feeds["logit_idx"] = np.array([len(tokens) - 1], np.int64)
    logits: Floats = session.run(["logits"], feeds)[0][0]
    return logits


def relative_error(got: Floats, wanted: Floats) -> float:
    """Euclidean length of the difference over that of ``wanted``."""
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
