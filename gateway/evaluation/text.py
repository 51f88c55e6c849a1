"""The tokens that perplexity is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base import EngineStartError
from engine.onnx.prepared import PreparedModel
from gateway.chat.template import ChatTemplate
from gateway.errors import InvalidRequest, PromptTimeout


@dataclass(frozen=True, slots=True)
class Text:
    """Token ids, at least two, and what they are for people."""

    ids: list[int]
    label: str


def read_text(file: Path, model: PreparedModel, most: int) -> Text:
    """The first ``most`` tokens of a file; raises EngineStartError.

    Tokens that the tokenizer puts before every text, such as a BOS, are there as well.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EngineStartError(f"there is no {file}: give a UTF-8 text file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EngineStartError(f"{file} cannot be read as UTF-8 text ({error})") from error
    ids = model.tokenizer.encode(text).ids
    if len(ids) < 2:
        raise EngineStartError(f"{file} has {len(ids)} tokens: give a text of a few sentences")
    return Text(ids[:most], counted(f"{file.name}", ids, most))


def built_in_text(model: PreparedModel, most: int) -> Text:
    """Conversations of the bundled corpus, as the model's chat template writes them.

    Raises EngineStartError for a template that refuses them.
    """
    from engine.models.bundled.samples import plain_conversations

    count = 64
    while True:
        texts = [written(model, found) for found in plain_conversations(count, heldout=True)]
        encoded = model.tokenizer.encode("".join(texts), add_special_tokens=False)
        if len(encoded.ids) >= most:
            return Text(encoded.ids[:most], f"built-in conversations, {most:,} tokens")
        count *= 2


def written(model: PreparedModel, messages: list[dict[str, Any]]) -> str:
    """One conversation as text."""
    if model.chat_template is None:
        return "".join(f"{message['content']}\n" for message in messages)
    try:
        return ChatTemplate(model.chat_template, model.template_globals).render(
            messages,
            tools=[],
            add_generation_prompt=False,
            continue_final_message=False,
            variables={},
        )
    except (InvalidRequest, PromptTimeout) as error:
        raise EngineStartError(
            f"the model's chat template refuses plain conversations ({error}): give --text FILE"
        ) from error


def counted(name: str, ids: list[int], most: int) -> str:
    """A file's name and how much of it was taken."""
    if len(ids) <= most:
        return f"{name}, {len(ids):,} tokens"
    return f"{name}, the first {most:,} of {len(ids):,} tokens"
