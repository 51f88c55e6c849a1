"""The exam of the bundled model: prompts with another seed, other phrasings and other values.

Operand pairs, words, names, cities and tools here are kept out of training. Facts are the same
ones, because a fact that was never taught cannot be known.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from engine.models.bundled.corpus import basics, exact, mix, tools
from engine.models.bundled.corpus.heldout_templates import HELDOUT
from engine.models.bundled.corpus.source import Bank, Segment, Source
from engine.models.bundled.corpus.unknowns import HELDOUT_UNKNOWN
from engine.models.evaluate import SKILLS, EvalItem, Messages, Tools

SEED = 20_260_101
HELDOUT_BANK: Bank = {**HELDOUT, **HELDOUT_UNKNOWN}


def items(per_skill: int = 50, seed: int = SEED) -> Iterator[EvalItem]:
    """`per_skill` exam items for each skill, deterministic under `seed`."""
    for skill in SKILLS:
        rng = random.Random(f"{seed}/{skill}")  # noqa: S311
        source = Source(rng, HELDOUT_BANK, heldout=True)
        for _ in range(per_skill):
            yield _BUILDERS[skill](source)


def _item(skill: str, segments: list[Segment], system: str | None = None,
          offered: list[tools.Tool] | None = None) -> EvalItem:  # fmt: skip
    messages: Messages = [message for segment in segments for message in segment.messages]
    if system:
        messages = [{"role": "system", "content": system}, *messages]
    schemas: Tools = [tool.schema for tool in offered] if offered else None
    return EvalItem(skill, messages[:-1], schemas, segments[-1].checks)


def _plainly(build: Callable[[Source], Segment]) -> Callable[[Source], EvalItem]:
    def one(source: Source) -> EvalItem:
        segments = [build(source)]
        if source.chance(0.2):
            segments.insert(0, mix.plain_segment(source))
        system = source.phrase("generic_system") if source.chance(0.25) else None
        return _item(segments[-1].skill, segments, system)

    return one


def _persona(source: Source) -> EvalItem:
    if source.chance(0.6):
        who = basics.persona(source)
        return _item("persona", [basics.persona_turn(source, who)], who.system)
    style = basics.rule(source)
    return _item("persona", [mix.styled_segment(source, style)], style.system)


def _memory(source: Source) -> EvalItem:
    kinds = list(dict.fromkeys((source.pick(basics.KINDS), source.pick(basics.KINDS))))
    memories = [basics.memory(source, kind) for kind in kinds]
    segments = [memory.tell for memory in memories]
    if kinds == ["name"] and source.chance(0.3):
        corrected = basics.renamed(source)
        memories, segments = [corrected], [*segments, corrected.tell]
    segments += [mix.plain_segment(source) for _ in range(source.pick((0, 1, 2)))]
    return _item("memory", [*segments, source.pick(memories).ask])


def _json(source: Source) -> EvalItem:
    if source.chance(0.2):
        return _item("json", [exact.json_mode(source)], source.phrase("json_system"))
    return _item("json", [exact.json_answer(source)])


def _tool_call(source: Source) -> EvalItem:
    offered = tools.offer(source)
    if source.chance(0.3):
        return _item("tool_call", [mix.unmatched(source, offered)], None, offered)
    return _item("tool_call", [tools.call(source, source.pick(offered))], None, offered)


def _tool_result(source: Source) -> EvalItem:
    offered = tools.offer(source)
    return _item("tool_result", [tools.result(source, source.pick(offered))], None, offered)


_BUILDERS: dict[str, Callable[[Source], EvalItem]] = {
    "greeting": _plainly(basics.about_itself),
    "persona": _persona,
    "memory": _memory,
    "arithmetic": _plainly(exact.arithmetic),
    "facts": _plainly(lambda source: exact.fact(source)[0]),
    "words": _plainly(exact.word_games),
    "json": _json,
    "tool_call": _tool_call,
    "tool_result": _tool_result,
    "unknown": _plainly(basics.unknown),
}
