"""Writes docs/compatibility.md: every field of every endpoint, here and in vLLM's own server.

    python scripts/compatibility.py            write the document
    python scripts/compatibility.py --fields   read vLLM's fields anew from the installed vLLM

What happens here comes from the tables that the parsers use; tests/sdk_contract sends every
field to each engine and holds the answer against the same tables. vLLM's fields come from its
request classes by way of scripts/vllm_fields.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from compatibility_notes import BEHAVIOUR, SERVE_ROUTES, SERVE_VALUES  # noqa: E402

from gateway.app import build_app  # noqa: E402
from gateway.protocol.anthropic_parameters import COUNT_TOKENS, MESSAGES  # noqa: E402
from gateway.protocol.batch_parameters import BATCH  # noqa: E402
from gateway.protocol.chat_parameters import CHAT  # noqa: E402
from gateway.protocol.completion_parameters import COMPLETION  # noqa: E402
from gateway.protocol.embedding_request import EMBEDDINGS  # noqa: E402
from gateway.protocol.parameters import Parameter  # noqa: E402
from gateway.protocol.predict import PREDICT  # noqa: E402
from gateway.protocol.response_parameters import RESPONSES  # noqa: E402
from gateway.protocol.token_requests import DETOKENIZE, TOKENIZE  # noqa: E402
from gateway.settings import Settings  # noqa: E402
from gateway.state import new_state  # noqa: E402

DOCUMENT = ROOT / "docs" / "compatibility.md"
FIELDS = Path(__file__).with_name("vllm_fields.json")
TABLES: dict[str, Mapping[str, Parameter]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
    "/v1/messages/count_tokens": COUNT_TOKENS,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/batches": BATCH,
    "/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
    "/predict": PREDICT,
}
INTRO = """# Compatibility

Written by `python scripts/compatibility.py` from the tables that the parsers use; a test fails when it is out of date. *Honoured*, *ignored* and *refused* mean what they mean in [api.md](api.md).

The ONNX engine and vLLM take the same fields, so there is one column for both: tests/sdk_contract sends each field to each of them. What depends on the model is refused by name where the model cannot do it: images, `suffix`, `dimensions`, chat with an embedding model.

The last column is `vllm serve` {version} itself: *taken*, or *ignored* where it does not know the field and says nothing.
"""  # noqa: E501


def document() -> str:
    """The whole document."""
    known = json.loads(FIELDS.read_text())
    parts = [INTRO.format(version=known["version"]), "## Routes\n", *routes(), "\n## Fields"]
    for path, table in TABLES.items():
        parts += [f"\n### {path}\n", *fields(path, table, known["fields"].get(path))]
    parts += ["\n## Behaviour\n", "| | Here | `vllm serve` |", "|---|---|---|"]
    parts += [f"| {case} | {here} | {there} |" for case, here, there in BEHAVIOUR]
    return "\n".join(parts) + "\n"


def routes() -> Iterator[str]:
    """A table of every documented route."""
    yield "| Route | `vllm serve` |"
    yield "|---|---|"
    described = build_app(new_state(Settings(_env_file=None))).cold.openapi()["paths"]
    for path, methods in sorted(described.items()):
        names = ", ".join(sorted(method.upper() for method in methods))
        yield f"| {names} `{path}` | {SERVE_ROUTES.get(path, 'not there')} |"


def fields(path: str, table: Mapping[str, Parameter], serve: list[str] | None) -> Iterator[str]:
    """A table of one endpoint's fields."""
    yield "| Field | Here | `vllm serve` | |"
    yield "|---|---|---|---|"
    for name, parameter in table.items():
        there = in_serve(path, name, serve)
        yield f"| `{name}` | {treatment(parameter)} | {there} | {parameter.note} |"


def treatment(parameter: Parameter) -> str:
    """What becomes of the field here."""
    if not parameter.harmless:
        return parameter.treatment
    return f"{parameter.treatment} except " + " or ".join(f"`{v!r}`" for v in parameter.harmless)


def in_serve(path: str, name: str, known: list[str] | None) -> str:
    """What becomes of the field in vLLM's own server."""
    if known is None:
        return "–"
    return SERVE_VALUES.get((path, name), "taken" if name in known else "ignored")


def read_vllm() -> str:
    """The fields of the installed vLLM's request classes, as scripts/vllm_fields.json has them."""
    from vllm.entrypoints.anthropic.protocol import (
        AnthropicCountTokensRequest,
        AnthropicMessagesRequest,
    )
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
    from vllm.entrypoints.pooling.embed.protocol import (
        EmbeddingChatRequest,
        EmbeddingCompletionRequest,
    )
    from vllm.entrypoints.serve.tokenize.protocol import (
        DetokenizeRequest,
        TokenizeChatRequest,
        TokenizeCompletionRequest,
    )

    from engine.vllm.compat import installed_version

    classes = {
        "/v1/chat/completions": (ChatCompletionRequest,),
        "/v1/completions": (CompletionRequest,),
        "/v1/responses": (ResponsesRequest,),
        "/v1/messages": (AnthropicMessagesRequest,),
        "/v1/messages/count_tokens": (AnthropicCountTokensRequest,),
        "/v1/embeddings": (EmbeddingCompletionRequest, EmbeddingChatRequest),
        "/tokenize": (TokenizeCompletionRequest, TokenizeChatRequest),
        "/detokenize": (DetokenizeRequest,),
    }
    found = {
        path: sorted({f for k in kinds for f in k.model_fields}) for path, kinds in classes.items()
    }
    return json.dumps({"version": installed_version(), "fields": found}, indent=1) + "\n"


if __name__ == "__main__":
    if "--fields" in sys.argv[1:]:
        FIELDS.write_text(read_vllm())
    DOCUMENT.write_text(document())
