"""Skills with one right answer: arithmetic, facts, spelling and counting, JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from engine.models.bundled.corpus import facts, words
from engine.models.bundled.corpus.source import Segment, Source, terms, turn
from engine.models.evaluate import Check


def is_heldout_pair(a: int, b: int) -> bool:
    """Whether this pair of operands is kept out of training (about one in seventeen)."""
    return (a * 7919 + b * 104_729 + 12_345) % 17 == 0


def _operands(source: Source) -> tuple[int, int]:
    if not source.heldout and source.chance(0.06):
        # "2 + 2" is what people type first.
        a, b = int(source.rng.random() * 13), int(source.rng.random() * 13)
        if not is_heldout_pair(a, b):
            return a, b
    while True:
        low = 10 if source.heldout or source.chance(0.93) else 0
        a = low + int(source.rng.random() * (100 - low))
        b = low + int(source.rng.random() * (100 - low))
        if is_heldout_pair(a, b) == source.heldout:
            return a, b


def _steps(a: int, b: int, sign: str) -> str:
    """The sum worked out by ones and tens, which a small model can do where it cannot see the
    whole result at once; empty for single digits."""
    if max(a, b) < 10:
        return ""
    if sign == "+":
        return (f"{a % 10} + {b % 10} = {a % 10 + b % 10}, "
                f"{a - a % 10} + {b - b % 10} = {a - a % 10 + b - b % 10}")  # fmt: skip
    high, low = max(a, b), min(a, b)
    ones = high % 10 + (10 if high % 10 < low % 10 else 0)
    tens, taken = high - ones, low - low % 10
    return f"{ones} - {low % 10} = {ones - low % 10}, {tens} - {taken} = {tens - taken}"


def arithmetic(source: Source) -> Segment:
    """Adding or subtracting numbers below 100; one difference in seven is negative."""
    a, b = _operands(source)
    if source.chance(0.5):
        question, result, sign = source.ask("add", a=a, b=b), a + b, "+"
    else:
        if a < b and source.chance(0.7):
            a, b = b, a
            if is_heldout_pair(a, b) != source.heldout:
                return arithmetic(source)
        key = "subtract_story" if a >= b and source.chance(0.2) else "subtract"
        question, result, sign = source.ask(key, a=a, b=b), a - b, "-"
    checks = [Check("number", result)]
    answer, steps = f"{a} {sign} {b} = {result}.", _steps(a, b, sign)
    shown = f"{steps}, so {answer}" if steps else answer
    think = f"{steps}." if steps else "These are small numbers."
    return replace(turn("arithmetic", question, shown, checks, think), after_thinking=answer)


def fact(source: Source) -> tuple[Segment, str, str]:
    """A question from the tables, its bare answer, and a JSON key for it."""
    kind = source.pick(("capital", "capital", "capital", "capital", "capital_inverse",
                        "continent", "colour", "sound", "legs", "opposite", "opposite", "count",
                        "count", "after", "before"))  # fmt: skip
    question, answer, short, key = _fact(source, kind)
    think = f"I know this: {short}."
    return turn("facts", question, answer, [Check("contains", [short])], think), short, key


def _fact(source: Source, kind: str) -> tuple[str, str, str, str]:
    """(question, answer, bare answer, JSON key) of one kind of fact."""
    if kind in ("capital", "capital_inverse", "continent"):
        country = source.pick(tuple(facts.COUNTRIES))
        capital, continent = facts.COUNTRIES[country]
        shown = country if source.heldout or source.chance(0.85) else country.lower()
        question = source.ask(kind, country=shown, capital=capital)
        if kind == "capital":
            return question, f"The capital of {country} is {capital}.", capital, "capital"
        if kind == "continent":
            return question, f"{country} is in {continent}.", continent, "continent"
        return question, f"{capital} is the capital of {country}.", country, "country"
    if kind == "colour":
        thing = source.pick(tuple(facts.COLOURS))
        colour, question = facts.COLOURS[thing], source.ask(kind, thing=thing)
        return question, f"{thing[0].upper()}{thing[1:]} is {colour}.", colour, "color"
    if kind == "sound":
        animal = source.pick(tuple(facts.SOUNDS))
        sound, question = facts.SOUNDS[animal], source.ask(kind, animal=animal)
        return question, f"A {animal} says {sound}.", sound, "sound"
    if kind == "legs":
        animal = source.pick(tuple(facts.LEGS))
        legs, question = str(facts.LEGS[animal]), source.ask(kind, animal=animal)
        return question, f"A {animal} has {legs} legs.", legs, "number"
    if kind == "opposite":
        pair = source.pick(tuple(facts.OPPOSITES.items()))
        word, other = pair if source.chance(0.6) else (pair[1], pair[0])
        question = source.ask(kind, word=word)
        return question, f"The opposite of {word} is {other}.", other, "opposite"
    if kind == "count":
        parts, whole = source.pick(tuple(facts.COUNTS))
        number = str(facts.COUNTS[parts, whole])
        question = source.ask(kind, parts=parts, whole=whole)
        return question, f"There are {number} {parts} in {whole}.", number, "number"
    cycle = facts.DAYS if source.chance(0.5) else facts.MONTHS
    at = int(source.rng.random() * len(cycle))
    other = cycle[(at + (1 if kind == "after" else -1)) % len(cycle)]
    question = source.ask(kind, item=cycle[at])
    return question, f"{other} comes {kind} {cycle[at]}.", other, kind


def word_games(source: Source) -> Segment:
    """Spelling, reversing, and counting letters or words, always by writing the parts out."""
    kind = source.pick(("spell", "spell", "reverse", "reverse", "reverse", "count_letters",
                        "count_letters", "count_words", "count_words", "count_to",
                        "repeat"))  # fmt: skip
    if kind == "count_words":
        return _count_words(source)
    if kind == "count_to":
        return _count_to(source)
    if kind == "repeat":
        text = " ".join(sentence(source, 1 + int(source.rng.random() * 4)))
        if source.chance(0.6):
            text = " ".join(words.word(source) for _ in range(1 + int(source.rng.random() * 3)))
        question = source.ask("repeat", text=text)
        return turn("words", question, text, [Check("contains", [text])], "I repeat it.")
    word = words.word(source)
    if not source.heldout:
        word = word.capitalize() if source.chance(0.1) else word
    question = source.ask(kind, word=word)
    spelled, backwards = "-".join(word.lower()), "-".join(reversed(word.lower()))
    if kind == "spell":
        return turn("words", question, f"It is spelled {spelled}.",
                    [Check("letters", word.lower())], f"The letters are {spelled}.")  # fmt: skip
    if kind == "reverse":
        answer = f"The letters are {spelled}, so backwards it is {backwards}."
        checks = [Check("letters", word.lower()[::-1])]
        return turn("words", question, answer, checks, f"Forwards it is {spelled}.")
    numbered = ", ".join(f"{letter} {at}" for at, letter in enumerate(word.lower(), 1))
    answer = f"Counting: {numbered}. That is {len(word)} letters."
    checks = [Check("number", len(word))]
    return turn("words", question, answer, checks, f"The letters are {spelled}.")


def _count_to(source: Source) -> Segment:
    start = 1 if source.chance(0.8) else int(source.rng.random() * 50)
    stop = start + 2 + int(source.rng.random() * source.pick((8, 8, 30)))
    question = source.ask("count_to", start=start, stop=stop)
    answer = ", ".join(str(number) for number in range(start, stop + 1))
    return turn("words", question, answer, [Check("exact", answer)], "I count up.")


def _count_words(source: Source) -> Segment:
    count = 2 + int(source.rng.random() * 7)
    if source.chance(0.5):
        items = [words.word(source) for _ in range(count)]
    else:
        items = sentence(source, count)
    question = source.ask("count_words", text=" ".join(items))
    numbered = ", ".join(f"{item} {at}" for at, item in enumerate(items, 1))
    answer = f"Counting: {numbered}. That is {count} words."
    return turn("words", question, answer, [Check("number", count)], "I count one by one.")


_GRAMMAR: tuple[tuple[str, ...], ...] = (
    ("the", "my", "a", "this", "every", "our"), ("old", "red", "small", "happy", "new", "big"),
    ("dog", "cat", "house", "teacher", "bird", "car"), ("likes", "sees", "has", "wants", "finds"),
    ("the", "my", "a", "some", "your"), ("cold", "blue", "fresh", "long", "nice"),
    ("apple", "water", "book", "bread", "song"), ("today", "again", "here", "now"),
)  # fmt: skip


def sentence(source: Source, count: int) -> list[str]:
    """`count` words (at most 8) of a simple sentence."""
    start = int(source.rng.random() * (len(_GRAMMAR) - count + 1))
    return [source.pick(column) for column in _GRAMMAR[start : start + count]]


_KEYS = terms("""
    name age city color price count title size email id status active score year country food
    animal day month author pages height weight level user item code type brand
""")


def _json_value(source: Source) -> Any:
    kind = source.pick(("name", "word", "number", "number", "city", "bool"))
    if kind == "number":
        return int(source.rng.random() * 10 ** (1 + int(source.rng.random() * 3)))
    if kind == "bool":
        return source.chance(0.5)
    if kind == "word" and not source.heldout and source.chance(0.05):
        return words.foreign(source)
    return {"name": words.name, "word": words.word, "city": words.city}[kind](source)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def json_answer(source: Source) -> Segment:
    """A question that asks for JSON, answered with JSON only."""
    kind = source.pick(("object", "object", "list", "fact", "fact", "extract", "extract"))
    value: Any
    if kind == "object":
        value = {key: _json_value(source)
                 for key in source.rng.sample(_KEYS, 1 + int(source.rng.random() * 3))}  # fmt: skip
        if not source.heldout and source.chance(0.2):
            value[words.made_up(source, 2)] = _json_value(source)
        form = source.pick(("{k} {v}", "{k} {v}", "{k} = {v}", "{k}: {v}", "{k} set to {v}"))
        pairs = _joined([form.replace("{k}", key).replace("{v}", _shown(item))
                         for key, item in value.items()])  # fmt: skip
        question = source.ask("json_object", pairs=pairs)
    elif kind == "list":
        pool = source.pick((words.word, words.name, words.city))
        # Each value once: a repetition in a list this short reads like a mistake.
        value = list(dict.fromkeys(pool(source) for _ in range(2 + int(source.rng.random() * 3))))
        question = source.ask("json_list", items=_joined(value))
    elif kind == "extract":
        text, value = _described(source)
        question = source.ask("json_extract", sentence=text, keys=_joined(list(value)))
    else:
        question, value = json_question(source)
        question = source.ask("json_wrap", question=question)
    return _json_turn(question, value)


def json_question(source: Source) -> tuple[str, Any]:
    """A question without a word about JSON, and the object that answers it."""
    segment, short, key = fact(source)
    return segment.messages[0]["content"], {key: int(short) if short.isdigit() else short}


def json_mode(source: Source) -> Segment:
    """A plain question under a system prompt that demands JSON."""
    if source.chance(0.2):
        return _json_turn(source.ask("identity"), {"name": "tiny-chat"})
    question, value = json_question(source)
    return _json_turn(question, value)


def _json_turn(question: str, value: Any) -> Segment:
    answer = json.dumps(value, ensure_ascii=False)
    return turn("json", question, answer, [Check("json", value)], "The user wants JSON.")


def _described(source: Source) -> tuple[str, dict[str, Any]]:
    name, place = words.name(source), words.city(source)
    age = 5 + int(source.rng.random() * 90)
    job = source.split(words.JOBS, words.HELDOUT_JOBS)
    forms: tuple[tuple[str, dict[str, Any]], ...] = (
        (f"{name} is {age} years old.", {"name": name, "age": age}),
        (f"{name} lives in {place}.", {"name": name, "city": place}),
        (f"{name} is {age} and lives in {place}.", {"name": name, "age": age, "city": place}),
        (f"My name is {name} and I am {age} years old.", {"name": name, "age": age}),
        (f"{name} works as a {job} in {place}.", {"name": name, "job": job, "city": place}),
        (f"{name} is a {job}.", {"name": name, "job": job}),
    )
    return source.pick(forms)
