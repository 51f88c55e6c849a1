"""Triton model: one text to the token ids of a prompt.

Needs tokenizers, and jinja2 where ``chat_template.jinja`` lies in the version's folder: the text
is then one user message, and the ids are those of the rendered conversation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb
from tokenizers import Tokenizer


class TritonPythonModel:
    """One instance; a tokenizer has no state between requests."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer, and the chat template if there is one."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        template = folder / "chat_template.jinja"
        self._render = chat_renderer(folder) if template.is_file() else None

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in order."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        raw = pb.get_input_tensor_by_name(request, "text_input").as_numpy().reshape(-1)
        try:
            text = raw[0].decode()
            prompt = self._render(text) if self._render else text
        except Exception as error:  # templates raise whatever they like
            problem = pb.TritonError(
                f"text_input cannot be read: {error}", pb.TritonError.INVALID_ARG
            )
            return pb.InferenceResponse(error=problem)
        # A rendered conversation spells out its special tokens itself.
        ids = self._tokenizer.encode(prompt, add_special_tokens=self._render is None).ids
        return pb.InferenceResponse([pb.Tensor("input_ids", np.array(ids, np.int64))])


def chat_renderer(folder: Path) -> Callable[[str], str]:
    """Turns one user message into a prompt that ends where the answer begins."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, **options: json.dumps(
        value, ensure_ascii=False, **options
    )
    environment.globals["raise_exception"] = raise_exception
    template = environment.from_string((folder / "chat_template.jinja").read_text("utf-8"))
    special = json.loads((folder / "special_tokens.json").read_text("utf-8"))

    def render(text: str) -> str:
        messages = [{"role": "user", "content": text}]
        return template.render(messages=messages, add_generation_prompt=True, **special)

    return render
