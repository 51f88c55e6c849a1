"""Conversations with tools: calling the right one, using its result, and leaving it alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from engine.models.bundled.corpus import words
from engine.models.bundled.corpus.finishing_families import FINISHING_FAMILIES
from engine.models.bundled.corpus.source import Segment, Source, fill, terms, turn
from engine.models.bundled.corpus.tool_families import (
    COMPOSED_ASKS,
    COMPOSED_SINGLE_ASKS,
    HELDOUT_COMPOSED_ASKS,
    HELDOUT_FAMILIES,
    PARAM_NAMES,
    TRAIN_FAMILIES,
    VERBS,
    Family,
)
from engine.models.evaluate import Check

_CURRENCIES = terms("USD EUR GBP JPY CHF CAD AUD SEK NOK INR dollars euros pounds yen francs")
_STATES = terms("sunny cloudy rainy windy snowy foggy stormy clear")
_STATUS = terms("ok done sent shipped delivered pending booked confirmed delayed success")
_INTEGERS = ("int", "small", "id")


@dataclass(frozen=True)
class Tool:
    """A tool as offered: its JSON schema, how users ask for it, and what it may answer."""

    schema: dict[str, Any]
    params: dict[str, tuple[str, str]]  # slot: (parameter name, kind of value)
    asks: tuple[str, ...]
    results: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The function name."""
        return str(self.schema["function"]["name"])


def value(source: Source, kind: str) -> Any:
    """A random argument or result of one kind."""
    number = source.rng.random()
    match kind:
        case "int" | "id":
            return int(number * 10 ** (1 + int(source.rng.random() * 4)))
        case "small":
            return 1 + int(number * 12)
        case "city":
            return words.city(source)
        case "name":
            return words.name(source)
        case "code":
            return words.code(source)
        case "words":
            return " ".join(words.word(source) for _ in range(1 + int(number * 3)))
        case "expression":
            return _expression(source)
        case "currency":
            return source.pick(_CURRENCIES)
        case "time":
            return f"{int(number * 24)}:{source.pick('012345')}{source.pick('05')}"
        case "date":
            return f"2026-{1 + int(number * 12):02}-{1 + int(source.rng.random() * 28):02}"
        case "email":
            return f"{words.name(source).lower()}@{words.word(source)}.{source.pick(_DOMAINS)}"
        case "symbol":
            return "".join(source.pick("ABCDEFGHIJKLMNOPRSTUVWXYZ") for _ in range(3))
        case "language":
            return source.pick(_LANGUAGES)
        case "room":
            return source.pick(_ROOMS)
        case "onoff":
            return source.pick(("on", "off"))
        case "sky":
            return source.pick(_STATES)
        case "status":
            return source.pick(_STATUS)
        case "file":
            return f"{words.word(source)}.{source.pick(('txt', 'pdf', 'csv'))}"
    raise ValueError(f"unknown kind of value {kind!r}")


_DOMAINS = ("com", "org", "net")
_LANGUAGES = terms("French Spanish German Italian Latin Japanese Greek Dutch Polish Turkish")
_ROOMS = ("kitchen", "bedroom", "garden", "office", "hall", "bathroom", "garage", "living room")


def _expression(source: Source) -> str:
    def number() -> str:
        return str(int(source.rng.random() * 10 ** (1 + int(source.rng.random() * 4))))

    gap = source.pick((" ", " ", ""))
    text = f"{number()}{gap}{source.pick('+-**/')}{gap}{number()}"
    return text if source.chance(0.7) else f"{text}{gap}{source.pick('+-*')}{gap}{number()}"


def _schema(name: str, description: str, params: dict[str, tuple[str, str]]) -> dict[str, Any]:
    properties = {param: {"type": "integer" if kind in _INTEGERS else "string"}
                  for param, kind in params.values()}  # fmt: skip
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


def _from_family(source: Source, family: Family, finishing: bool) -> Tool:
    params = {slot: (source.pick(names), kind) for slot, (names, kind) in family.params.items()}
    name = source.pick(family.names)
    if finishing and source.chance(0.35):
        # The name of a parameter stands in the schema; here it cannot be guessed from the tool.
        used = source.rng.sample(PARAM_NAMES, len(params))
        made = [words.made_up(source, 2) if source.chance(0.4) else param for param in used]
        kinds = [kind for _, kind in params.values()]
        params = {slot: (param, kind)
                  for slot, param, kind in zip(params, made, kinds, strict=True)}  # fmt: skip
    if not source.heldout and source.chance(0.15):
        name = f"{name}_{words.made_up(source, 1)}"
    return Tool(_schema(name, family.description, params), params, family.asks, family.results)


def _composed(source: Source) -> Tool:
    """A tool nobody has seen: verb, noun, and one or two parameters with arbitrary names."""
    verb, noun = source.pick(VERBS), source.pick(words.PLAIN_NOUNS)
    if not source.heldout and source.chance(0.4):
        noun = words.made_up(source, 2)
    form = source.pick(("{v}_{n}", "{v}_{n}", "{n}_{v}", "{v}{N}"))
    name = fill(form, {"v": verb, "n": noun, "N": noun.capitalize()})
    names = source.rng.sample(PARAM_NAMES, 1 + int(source.rng.random() * 2))
    if not source.heldout and source.chance(0.25):
        names[0] = words.made_up(source, 2)
    params = {slot: (param, source.pick(("int", "word", "code", "name")))
              for slot, param in zip("xy", names, strict=False)}  # fmt: skip
    params = {slot: (param, "words" if kind == "word" else kind)
              for slot, (param, kind) in params.items()}  # fmt: skip
    pairs = " and ".join(f"{param.replace('_', ' ')} {{{slot}}}"
                         for slot, (param, _) in params.items())  # fmt: skip
    asks = HELDOUT_COMPOSED_ASKS if source.heldout else COMPOSED_ASKS
    if not source.heldout and len(names) == 1 and source.chance(0.3):
        asks = COMPOSED_SINGLE_ASKS
    filled = tuple(fill(ask, {"v": verb, "n": noun, "p": pairs, "x": "{x}"}) for ask in asks)
    filled = tuple(ask[0].upper() + ask[1:] for ask in filled)
    description = f"{verb.capitalize()} a {noun}"
    results = (("status", "status"), (source.pick(PARAM_NAMES), "int"))
    return Tool(_schema(name, description, params), params, filled, results)


def offer(source: Source, *, finishing: bool = False) -> list[Tool]:
    """One to three tools that differ in name and purpose; harder ones when `finishing`."""
    families = FINISHING_FAMILIES if finishing else TRAIN_FAMILIES
    families = HELDOUT_FAMILIES if source.heldout else families
    count = source.pick((1, 1, 2, 2, 3))
    tools = [
        _composed(source) if source.chance(0.4) else _from_family(source, family, finishing)
        for family in source.rng.sample(families, count)
    ]
    verbs = {tool.name for tool in tools}
    weather_twice = sum("weather" in name or "forecast" in name for name in verbs) > 1
    return offer(source, finishing=finishing) if len(verbs) < count or weather_twice else tools


def call(source: Source, tool: Tool) -> Segment:
    """A request that needs `tool`, answered with the call."""
    values = {slot: value(source, kind) for slot, (_, kind) in tool.params.items()}
    noisy = Source(source.rng, {"ask": tool.asks}, source.heldout)
    question = noisy.ask("ask", **values)
    arguments = {param: values[slot] for slot, (param, _) in tool.params.items()}
    body = {"name": tool.name, "arguments": arguments}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": None,
         "tool_calls": [{"type": "function", "function": body}]},
    ]  # fmt: skip
    think = f"The tool {tool.name} fits."
    return Segment("tool_call", messages, (Check("tool_call", body),), think)


def result(source: Source, tool: Tool) -> Segment:
    """A request, the call, the tool's result, and an answer that tells the result."""
    asked = call(source, tool)
    count = 1 + int(source.rng.random() * len(tool.results))
    fields = {key: value(source, kind) for key, kind in tool.results[:count]}
    form = source.pick(("object", "object", "object", "text", "error"))
    if form == "object":
        content = json.dumps(fields, ensure_ascii=False)
        told = " and the ".join(f"{key.replace('_', ' ')} is {item}"
                                for key, item in fields.items())  # fmt: skip
        answer, wanted = f"The {told}.", [str(item) for item in fields.values()]
    elif form == "text":
        content = source.pick(("{v}", "{v}", "It is {v}", "{k}: {v}", "The {k} is {v}"))
        key, item = next(iter(fields.items()))
        content = content.replace("{k}", key).replace("{v}", str(item))
        answer, wanted = f"The tool says: {content}", [str(item)]
    else:
        problem = " ".join(words.word(source) for _ in range(2))
        problem = source.pick(("not found", "timeout", "no access", "bad input", problem))
        content = json.dumps({"error": problem})
        answer, wanted = f"Sorry, the tool failed: {problem}.", [problem]
    messages = [*asked.messages, {"role": "tool", "content": content},
                {"role": "assistant", "content": answer}]  # fmt: skip
    checks = (Check("contains", wanted),)
    return Segment("tool_result", messages, checks, "The tool answered. I tell the result.")


def no_match(source: Source, plain: Segment) -> Segment:
    """A plain exchange filed under tool calls: the offered tools must be left alone."""
    question, answer = plain.messages[-2]["content"], plain.messages[-1]["content"]
    return turn("tool_call", question, answer, plain.checks, plain.think)
