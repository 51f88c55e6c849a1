"""Before the load: does the server answer, how does it want to be asked, how long are words?"""

from __future__ import annotations

from typing import Any

from gateway.bench.errors import BenchError
from gateway.bench.exchange import NO_CONNECTION, REFUSED, message_of
from gateway.bench.outcome import Outcome
from gateway.bench.target import Target
from gateway.bench.words import WORDS, Vocabulary, probe_text

_PROBES = (16, 112)
# What tokenizers write for the blank that begins a word.
_BLANKS = ("Ġ", "▁", " ")


async def acquaint(target: Target, *, with_words: bool) -> None:
    """Find the model, send a first request, and count words if prompts are to be made.
    Raises BenchError when the server cannot be loaded, with the reason."""
    await find_model(target)
    await try_out(target)
    if with_words:
        found = await from_tokenize(target)
        target.vocabulary = found or await from_probes(target)
        if found is None:
            target.notes.append(
                f"{target.server.name} has no /tokenize: lengths of prompts are fitted to what it"
                " counts, and right on average"
            )


async def find_model(target: Target) -> None:
    """Take the first model of the server unless one is named."""
    if target.model:
        return
    status, document = await target.models()
    if status in (401, 403):
        raise _wrong_key(target, message_of(document, b""))
    try:
        target.model = str(document["data"][0]["id"])
    except (KeyError, IndexError, TypeError):
        raise BenchError(
            f"the server at {target.url} lists no models (it answered {status}); name one with"
            " --model"
        ) from None


async def try_out(target: Target) -> None:
    """Send a short request, and learn from refusals what the server does not take."""
    while True:
        outcome = await target.ask(target.request(probe_text(_PROBES[0], 1), 2))
        if outcome.good:
            break
        if not _adapt(target, outcome):
            raise _refused(target, outcome)
    if not outcome.counted:
        target.notes.append(f"{target.server.name} counts no tokens: events are counted instead")


async def from_tokenize(target: Target) -> Vocabulary | None:
    """Every word counted by the server's /tokenize, as vLLM and this gateway have it."""
    asked = {"add_special_tokens": False, "return_token_strs": True}
    status, document = await target.tokenize({**asked, "prompt": " " + " ".join(WORDS)})
    strings = document.get("token_strs") if isinstance(document, dict) else None
    if status != 200 or not isinstance(strings, list):
        return None
    costs: list[int] = []
    for string in strings:
        if str(string).startswith(_BLANKS):
            costs.append(0)
        if not costs:
            return None
        costs[-1] += 1
    if len(costs) != len(WORDS):
        return None
    probe = f" {WORDS[0]} {WORDS[1]}"
    whole: dict[str, Any] = {"prompt": probe}
    if target.endpoint == "chat":
        whole = {"messages": [{"role": "user", "content": probe}]}
    status, document = await target.tokenize(whole)
    count = document.get("count") if isinstance(document, dict) else None
    if status != 200 or not isinstance(count, int):
        return None
    return Vocabulary.counted(count - costs[0] - costs[1], costs)


async def from_probes(target: Target) -> Vocabulary:
    """A line through the prompt tokens of two requests."""
    counts = []
    for words in _PROBES:
        outcome = await target.ask(target.request(probe_text(words, words), 1))
        if not outcome.good:
            raise _refused(target, outcome)
        counts.append((words, outcome.input_tokens or words))
    return Vocabulary.fitted(counts)


def _adapt(target: Target, outcome: Outcome) -> bool:
    """Leave out what a refusal names; whether there was anything."""
    if outcome.kind not in ("HTTP 400", "HTTP 422"):
        return False
    name = target.server.name
    if "max_completion_tokens" in outcome.message and target.limit == "max_tokens":
        target.limit = "max_completion_tokens"
        return True
    for field in ("ignore_eos", "stream_options"):
        if field in outcome.message and target.fields.pop(field, None) is not None:
            target.notes.append(f"{name} does not take {field}, so it is left out")
            return True
    return False


def _refused(target: Target, outcome: Outcome) -> BenchError:
    if outcome.kind in (REFUSED, NO_CONNECTION):
        return target.unreachable(outcome.message)
    if outcome.kind in ("HTTP 401", "HTTP 403"):
        return _wrong_key(target, outcome.message)
    return BenchError(
        f"the server at {target.url} does not answer a first request for model"
        f" {target.model!r}: {outcome.kind}: {outcome.message}"
    )


def _wrong_key(target: Target, reason: str) -> BenchError:
    return BenchError(
        f"the server at {target.url} needs a valid key (--api-key or OPENAI_API_KEY): {reason}"
    )
