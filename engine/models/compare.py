"""Lays a converted decoder beside its PyTorch original: logits and greedy tokens per prompt.

Runs at the end of an export, in its process, where transformers is loaded already.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.base import EngineStartError
from engine.onnx.hardware import physical_cores
from engine.onnx.prepared import PreparedModel
from engine.onnx.session import ModelSession

CHUNK = 256
PROMPTS = (
    "The quick brown fox",
    "Once upon a time, in a village by the sea, there lived a clockmaker who",
    "Q: What is the capital of France?\nA:",
    "def mean(values):\n    return",
    "Wie spät ist es? Es ist",
)

Report = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Agreement:
    """One prompt on both sides, in fp32 on PyTorch's.

    Attributes:
        same_tokens: greedy tokens that were the same before the first that differed.
        tokens: greedy tokens asked for.
        max_logit_difference: largest absolute difference of a logit, over every position of
            the prompt and of PyTorch's continuation, which both sides were fed.
        relative_error: Euclidean length of the logits' difference over that of PyTorch's.
        same_choice: share of those positions at which the most likely token is the same.
    """

    prompt: str
    prompt_tokens: int
    same_tokens: int
    tokens: int
    max_logit_difference: float
    relative_error: float
    same_choice: float


def read_prompts(path: Path) -> tuple[str, ...]:
    """Prompts of a file: one per line, or in ``.jsonl`` the ``prompt`` of each line's object.

    Raises:
        EngineStartError: the file cannot be read, or which line is wrong and why.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EngineStartError(f"the prompts {path} cannot be read ({error})") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if path.suffix != ".jsonl":
            found.append(line)
            continue
        try:
            prompt = json.loads(line)["prompt"]
        except (ValueError, LookupError, TypeError):
            prompt = None
        if not isinstance(prompt, str) or not prompt:
            raise EngineStartError(
                f'{path}, line {number} is not of the form {{"prompt": "some text"}}: correct it'
            )
        found.append(prompt)
    if not found:
        raise EngineStartError(f"{path} holds no prompts: write one per line")
    return tuple(found)


def compare(source: Path, prepared: Path, questions: Path, report: Report) -> None:
    """Answer the prompts in ``questions`` on both sides and write the rows into the file.

    Args:
        source: the Hugging Face folder.
        prepared: what it was converted to.
        questions: JSON with ``prompts`` and ``tokens``; gets ``rows``, Agreement as JSON.

    Raises:
        EngineStartError: a prompt does not fit into the model.
    """
    asked = json.loads(questions.read_text(encoding="utf-8"))
    model = PreparedModel.read(prepared)
    ids = _encode(model, asked["prompts"], asked["tokens"])
    original = Original(source)
    longest = max(map(len, ids)) + asked["tokens"]
    session = ModelSession(
        model,
        slots=1,
        max_len=longest,
        resident_tokens=longest,
        max_chunk=CHUNK,
        threads=physical_cores(),
        spin_us=0,
    )
    rows = []
    for text, prompt in zip(asked["prompts"], ids, strict=True):
        wanted, logits = original.greedy(prompt, asked["tokens"])
        fed = feed(session, [*prompt, *wanted[:-1]])
        got = greedy(session, len(prompt), int(fed[len(prompt) - 1].argmax()), asked["tokens"])
        rows.append(_agreement(text, len(prompt), (wanted, logits), (got, fed)))
        report(len(rows) / len(ids))
    asked["rows"] = [asdict(row) for row in rows]
    questions.write_text(json.dumps(asked), encoding="utf-8")


def _encode(model: PreparedModel, texts: list[str], tokens: int) -> list[list[int]]:
    room = model.manifest.max_model_len - tokens
    found = []
    for number, text in enumerate(texts, start=1):
        ids = model.tokenizer.encode(text).ids
        if not 0 < len(ids) <= room:
            raise EngineStartError(
                f"prompt {number} has {len(ids)} tokens; beside {tokens} greedy ones the model "
                f"takes 1 to {room}: change the prompt, or ask for fewer with --tokens"
            )
        found.append(ids)
    return found


class Original:
    """The checkpoint on PyTorch, in float32."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            trust_remote_code=False,
        ).eval()

    def greedy(self, prompt: list[int], count: int) -> tuple[list[int], np.ndarray]:
        """``count`` most likely tokens, and logits [len(prompt) + count - 1, vocab]."""
        import torch

        tokens: list[int] = []
        logits: list[np.ndarray] = []
        cache: Any = None
        step = prompt
        with torch.no_grad():
            while len(tokens) < count:
                out = self._model(torch.tensor([step]), past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                logits.append(out.logits[0].float().numpy())
                tokens.append(int(logits[-1][-1].argmax()))
                step = tokens[-1:]
        return tokens, np.concatenate(logits)


def feed(session: ModelSession, tokens: list[int]) -> np.ndarray:
    """Logits [len(tokens), vocab] after each token, all of them given."""
    parts = []
    for start in range(0, len(tokens), CHUNK):
        chunk = tokens[start : start + CHUNK]
        parts.append(session.prefill(0, start, chunk, wanted=len(chunk)).copy())
    return np.concatenate(parts)


def greedy(session: ModelSession, past: int, first: int, count: int) -> list[int]:
    """``count`` most likely tokens, the first of them known, after the ``past`` first ones fed."""
    tokens = [first]
    while len(tokens) < count:
        tokens.append(int(session.decode(tokens[-1:], [past + len(tokens) - 1])[0].argmax()))
    return tokens


def _agreement(
    text: str,
    prompt_tokens: int,
    wanted: tuple[list[int], np.ndarray],
    got: tuple[list[int], np.ndarray],
) -> Agreement:
    pairs = enumerate(zip(wanted[0], got[0], strict=True))
    same = next((at for at, (a, b) in pairs if a != b), len(wanted[0]))
    difference = got[1] - wanted[1]
    return Agreement(
        prompt=text,
        prompt_tokens=prompt_tokens,
        same_tokens=same,
        tokens=len(wanted[0]),
        max_logit_difference=float(np.abs(difference).max()),
        relative_error=float(np.linalg.norm(difference) / np.linalg.norm(wanted[1])),
        same_choice=float((got[1].argmax(axis=1) == wanted[1].argmax(axis=1)).mean()),
    )
