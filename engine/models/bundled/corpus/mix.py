"""Conversations that mix the skills over several turns."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from engine.models.bundled.corpus import basics, exact, tools
from engine.models.bundled.corpus.source import Bank, Segment, Source
from engine.models.bundled.corpus.train_exact import TRAIN_EXACT
from engine.models.bundled.corpus.train_memory import TRAIN_MEMORY
from engine.models.bundled.corpus.train_talk import TRAIN_TALK
from engine.models.bundled.corpus.train_text import TRAIN_TEXT
from engine.models.bundled.corpus.unknowns import TRAIN_UNKNOWN

TRAIN_BANK: Bank = {**TRAIN_TALK, **TRAIN_MEMORY, **TRAIN_EXACT, **TRAIN_TEXT, **TRAIN_UNKNOWN}
THINK_SHARE = 0.05


@dataclass(frozen=True)
class Conversation:
    """Messages ready for the chat template. With `think` set, the last answer is preceded by
    that reasoning (the thinking mode of the template)."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    think: str | None = None


def plain_segment(source: Source) -> Segment:
    """One exchange that needs neither a system prompt nor a tool."""
    roll = source.rng.random()
    for limit, build in _PLAIN:
        if roll < limit:
            return build(source)
    return basics.unknown(source)


def _fact(source: Source) -> Segment:
    return exact.fact(source)[0]


_PLAIN: tuple[tuple[float, Callable[[Source], Segment]], ...] = (
    (0.11, basics.about_itself),
    (0.29, exact.arithmetic),
    (0.45, _fact),
    (0.64, exact.word_games),
    (0.84, exact.json_answer),
    (1.0, basics.unknown),
)


def conversations(
    seed: int, count: int, turns: int | None = None, *, finishing: bool = False
) -> Iterator[Conversation]:
    """`count` training conversations; `turns` fixes their length (in exchanges)."""
    source = Source(random.Random(seed), TRAIN_BANK)  # noqa: S311
    for _ in range(count):
        yield conversation(source, turns, finishing=finishing)


def conversation(
    source: Source, turns: int | None = None, *, finishing: bool = False
) -> Conversation:
    """One training conversation of a random kind; `finishing` ones have tools more often."""
    length = turns or source.pick((1, 1, 1, 2, 2, 3, 4))
    build = source.pick(_FINISHING_KINDS if finishing else _KINDS)
    return build(source, length)


def _finish(source: Source, segments: list[Segment], system: str | None,
            offered: list[tools.Tool] | None = None) -> Conversation:  # fmt: skip
    messages = [message for segment in segments for message in segment.messages]
    if system:
        messages = [{"role": "system", "content": system}, *messages]
    schemas = [tool.schema for tool in offered] if offered else None
    last = segments[-1]
    think = last.think if last.think and source.chance(_think_share(last)) else None
    if think and last.after_thinking:
        messages[-1] = {**messages[-1], "content": last.after_thinking}
    return Conversation(messages, schemas, think)


def _think_share(segment: Segment) -> float:
    return 2 * THINK_SHARE if segment.skill in ("arithmetic", "words") else THINK_SHARE


def _generic_system(source: Source) -> str | None:
    if source.chance(basics.GENERIC_SYSTEM_SHARE):
        return source.phrase("generic_system")
    return None


def _plain(source: Source, length: int) -> Conversation:
    segments = [plain_segment(source) for _ in range(length)]
    return _finish(source, segments, _generic_system(source))


def _memory(source: Source, length: int) -> Conversation:
    """Facts about the user first, other exchanges between, then the questions."""
    if source.chance(0.08):
        between = [plain_segment(source) for _ in range(length - 1)]
        return _finish(source, [*between, basics.not_told(source)], _generic_system(source))
    kinds = list(dict.fromkeys(source.pick(basics.KINDS) for _ in range(source.pick((1, 1, 2, 3)))))
    memories = [basics.memory(source, kind) for kind in kinds]
    segments = [memory.tell for memory in memories]
    if "name" in kinds and source.chance(0.12):
        corrected = basics.renamed(source)
        segments.append(corrected.tell)
        memories[kinds.index("name")] = corrected
    segments += [plain_segment(source) for _ in range(source.pick((0, 0, 1, 1, 2, length)))]
    questions = [memory.ask for memory in memories]
    source.rng.shuffle(questions)
    return _finish(source, segments + questions, _generic_system(source))


def _persona(source: Source, length: int) -> Conversation:
    who = basics.persona(source)
    segments = [basics.persona_turn(source, who)]
    for _ in range(length - 1):
        other = plain_segment(source)
        again = other.skill == "greeting" or source.chance(0.3)
        segments.append(basics.persona_turn(source, who) if again else other)
    source.rng.shuffle(segments)
    return _finish(source, segments, who.system)


def _rule(source: Source, length: int) -> Conversation:
    style = basics.rule(source)
    return _finish(source, [styled_segment(source, style) for _ in range(length)], style.system)


def styled_segment(source: Source, style: basics.Rule) -> Segment:
    """A fact or (where one word is not asked for) a greeting, answered in a style."""
    if style.kind != "short" and source.chance(0.35):
        return basics.styled(basics.about_itself(source), style, "")
    segment, short, _ = exact.fact(source)
    return basics.styled(segment, style, short)


def _json_mode(source: Source, length: int) -> Conversation:
    segments = [exact.json_mode(source) for _ in range(length)]
    return _finish(source, segments, source.phrase("json_system"))


def _tools(source: Source, length: int) -> Conversation:
    return _with_tools(source, length, tools.offer(source))


def _harder_tools(source: Source, length: int) -> Conversation:
    return _with_tools(source, length, tools.offer(source, finishing=True))


def _with_tools(source: Source, length: int, offered: list[tools.Tool]) -> Conversation:
    segments: list[Segment] = []
    # Descriptions of tools are long, so several exchanges share them.
    for _ in range(min(length + 1, 4)):
        roll = source.rng.random()
        if roll < 0.2:
            segments.append(tools.call(source, source.pick(offered)))
            # A call without a result ends the conversation: the client has to answer it.
            break
        if roll < 0.7:
            segments.append(tools.result(source, source.pick(offered)))
        else:
            segments.append(unmatched(source, offered))
    return _finish(source, segments, _generic_system(source), offered)


def unmatched(source: Source, offered: list[tools.Tool]) -> Segment:
    """A plain exchange that no offered tool could serve."""
    names = " ".join(tool.name for tool in offered)
    calculates = any(part in names for part in ("calc", "math", "evaluate"))
    while True:
        segment = plain_segment(source)
        if segment.skill == "unknown" or (segment.skill == "arithmetic" and calculates):
            continue
        return tools.no_match(source, segment)


def _drill(source: Source, length: int) -> Conversation:
    """Several exchanges of one skill that needs practice."""
    build = source.pick(
        (exact.arithmetic, exact.word_games, exact.word_games, exact.word_games, _fact)
    )
    return _finish(source, [build(source) for _ in range(6)], None)


_KINDS = (
    *(_plain,) * 6,
    *(_drill,) * 6,
    *(_memory,) * 3,
    *(_persona,) * 3,
    *(_rule,) * 5,
    _json_mode,
    *(_tools,) * 5,
)
# Choosing among tools is learnt last and from the most examples.
_FINISHING_KINDS = (*_KINDS, *(_harder_tools,) * 18)
