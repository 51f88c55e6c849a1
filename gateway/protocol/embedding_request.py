"""The body of ``POST /v1/embeddings``: every field, and the checked request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.protocol.chat_parameters import TOKEN_ID
from gateway.protocol.parameters import Parameter, ignored, index, read_fields, refused
from gateway.protocol.values import (
    Boolean,
    Integer,
    ListOf,
    OneOf,
    Schema,
    Text,
    check_length,
    wrong_type,
    wrong_value,
)

# As OpenAI bounds them; a text's tokens are bounded by the model.
MAX_INPUTS = 2048
MAX_TOTAL_TOKENS = 300_000
MAX_CHARACTERS = 4_000_000
MAX_DIMENSIONS = 65_536

_TEXT = Text(MAX_CHARACTERS, 1)
_IDS = ListOf(TOKEN_ID, MAX_TOTAL_TOKENS, 1)

Input = str | list[int]


@dataclass(frozen=True, slots=True)
class Inputs:
    """A text, a list of texts, token ids, or a list of lists of them; read as a list."""

    def read(self, value: Any, path: str) -> list[Input]:
        if type(value) is str:
            return [_TEXT.read(value, path)]
        if type(value) is not list:
            wrong_type(path, value, "a string or an array")
        if not value:
            wrong_value(path, "expected at least one item")
        if type(value[0]) in (int, float):
            return [_IDS.read(value, path)]
        check_length(value, path, 1, MAX_INPUTS)
        reader: Text | ListOf = _IDS if type(value[0]) is list else _TEXT
        return [reader.read(item, f"{path}[{place}]") for place, item in enumerate(value)]

    def schema(self) -> Schema:
        many = {"minItems": 1, "maxItems": MAX_INPUTS, "type": "array"}
        return {
            "anyOf": [
                _TEXT.schema(),
                {**many, "items": _TEXT.schema()},
                _IDS.schema(),
                {**many, "items": _IDS.schema()},
            ]
        }


EMBEDDINGS = index(
    (
        Parameter("model", "Name of the model; absent: the first that embeds.", Text(256, 1)),
        Parameter(
            "input",
            "A text, texts, token ids, or lists of them; one vector for each.",
            Inputs(),
            required=True,
        ),
        Parameter(
            "encoding_format",
            "'float' or 'base64' (float32, little-endian); absent: float.",
            OneOf(("float", "base64")),
        ),
        Parameter(
            "dimensions",
            "Shorter vectors, of length 1 again; for models that are trained for it.",
            Integer(1, MAX_DIMENSIONS),
        ),
        Parameter(
            "truncate_prompt_tokens",
            "vLLM: cut longer inputs to this many tokens; -1: to what the model takes.",
            Integer(-1, MAX_TOTAL_TOKENS),
        ),
        Parameter(
            "truncation_side",
            "vLLM: 'right' keeps the first tokens, 'left' the last; absent: right.",
            OneOf(("left", "right")),
        ),
        Parameter(
            "add_special_tokens",
            "vLLM: frame texts as the model was trained; absent: true.",
            Boolean(),
        ),
        Parameter(
            "use_activation",
            "vLLM: whether vectors get length 1; absent: as the model says.",
            Boolean(),
        ),
        # Accepted and ignored: they change nothing in the answer.
        ignored("user", "Use the key to tell users apart."),
        ignored("safety_identifier", "Use the key to tell users apart."),
        ignored("request_id", "Send the x-request-id header instead."),
        ignored("cache_salt", "Nothing is shared between requests."),
        ignored("add_generation_prompt", "Inputs are texts, not conversations."),
        ignored("continue_final_message", "Inputs are texts, not conversations."),
        # Refused: ignoring them would mislead.
        refused("priority", "the client's word does not set priority.", 0),
        refused("messages", "send the text as input."),
        refused("padding", "inputs are never padded.", "do_not_pad"),
        refused("embed_dtype", "vectors are float32.", "float32"),
        refused("endianness", "vectors are little-endian.", "native", "little"),
        refused("chat_template", "inputs are texts, not conversations."),
        refused("chat_template_kwargs", "inputs are texts, not conversations.", {}),
        refused("mm_processor_kwargs", "this endpoint takes text only."),
        refused("media_io_kwargs", "this endpoint takes text only."),
    )
)


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A checked request; what depends on the model is checked later.

    Attributes:
        inputs: texts, or token ids to be taken as they are.
        truncate: tokens to cut longer inputs to; -1: what the model takes; None: refuse them.
        keep_end: cut at the beginning.
        normalize: whether vectors get length 1, or None for the model's own way.
    """

    model: str | None
    inputs: list[Input]
    base64: bool
    dimensions: int | None
    truncate: int | None
    keep_end: bool
    add_special_tokens: bool
    normalize: bool | None


def read_embedding_request(document: dict[str, Any], *, strict: bool = False) -> EmbeddingRequest:
    """Check a decoded body. Raises InvalidRequest naming the field at fault."""
    fields = read_fields(document, EMBEDDINGS, strict=strict)
    truncate = fields.get("truncate_prompt_tokens")
    if truncate == 0:
        wrong_value("truncate_prompt_tokens", "expected -1 or a value >= 1, but got 0")
    return EmbeddingRequest(
        model=fields.get("model"),
        inputs=fields["input"],
        base64=fields.get("encoding_format") == "base64",
        dimensions=fields.get("dimensions"),
        truncate=truncate,
        keep_end=fields.get("truncation_side") == "left",
        add_special_tokens=fields.get("add_special_tokens", True),
        normalize=fields.get("use_activation"),
    )
