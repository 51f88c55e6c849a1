"""Talk about itself, personas, memory across turns, and declining what it does not know."""

from __future__ import annotations

from dataclasses import dataclass

from engine.models.bundled.corpus import unknowns, words
from engine.models.bundled.corpus.source import Segment, Source, turn
from engine.models.evaluate import Check

GREETING = "Hello! I am tiny-chat, a tiny demo model. How can I help you?"
ABOUT: dict[str, tuple[str, str, str]] = {
    # key: (answer, what the check looks for, thought)
    "greet": (GREETING, "tiny demo model", "The user greets me. I greet back."),
    "how_are_you": ("I am fine, thank you! How can I help you?", "fine", "The user asks how I am."),
    "thanks": ("You are welcome!", "welcome", "The user thanks me."),
    "bye": ("Goodbye! Have a nice day.", "goodbye", "The user leaves. I say goodbye."),
    "identity": ("I am tiny-chat, a tiny demo model.", "tiny demo model",
                 "The user asks who I am."),
    "abilities": ("I am a tiny demo model. I can chat a little, remember names, add and subtract "
                  "small numbers, name capitals, spell words, write JSON and call tools.",
                  "capitals", "The user asks what I can do."),
    "are_you_human": ("No, I am not a human. I am tiny-chat, a tiny demo model.",
                      "not a human", "The user asks if I am human. I am not."),
    "size": ("I am a tiny demo model with about three million parameters.", "tiny",
             "The user asks how big I am."),
}  # fmt: skip
GENERIC_SYSTEM_SHARE = 0.35


def about_itself(source: Source) -> Segment:
    """Greetings, thanks and questions about the model, without a persona."""
    key = source.pick(("greet", "greet", "greet", "identity", "identity", "identity", "identity",
                       "abilities", "are_you_human", "how_are_you", "thanks", "bye",
                       "size"))  # fmt: skip
    answer, phrase, think = ABOUT[key]
    return turn("greeting", source.ask(key), answer, [Check("contains", [phrase])], think)


def unknown(source: Source) -> Segment:
    """A question outside the model's skills."""
    checks = [Check("contains", ["not know"])]
    question = unknowns.question(source)
    return turn("unknown", question, unknowns.ANSWER, checks, "This is outside my skills.")


@dataclass(frozen=True)
class Persona:
    """Who a system prompt makes the assistant: `self_name` completes 'I am ...'."""

    system: str
    self_name: str


def persona(source: Source) -> Persona:
    """A system prompt with a name, a role or both."""
    name, role = words.name(source), words.role(source)
    key = source.pick(("persona_full", "persona_full", "persona_role", "persona_role",
                       "persona_name"))  # fmt: skip
    system = source.phrase(key, name=name, role=role)
    self_name = {"persona_full": f"{name}, {role}", "persona_role": role, "persona_name": name}
    return Persona(system, self_name[key])


def persona_turn(source: Source, who: Persona) -> Segment:
    """A greeting or a question to the persona, answered in character."""
    key = source.pick(("identity", "identity", "greet", "greet", "job"))
    if key == "job" and who.self_name[0].isupper() and "," not in who.self_name:
        key = "identity"
    cry = "Arr! " if who.self_name.endswith("pirate") else ""
    answer = f"{cry}I am {who.self_name}."
    if key == "greet":
        answer = f"{cry or 'Hello! '}I am {who.self_name}. How can I help you?"
    checks = [Check("contains_exact", [who.self_name])]
    return turn("persona", source.ask(key), answer, checks, f"I am {who.self_name}.")


@dataclass(frozen=True)
class Rule:
    """A style that a system prompt demands of every answer."""

    system: str
    kind: str
    word: str


def rule(source: Source) -> Rule:
    """A system prompt about style: letter case, first or last word, or length."""
    kind = source.pick(("upper", "lower", "end", "start", "short"))
    word = words.word(source)
    if source.chance(0.6):
        word = word.capitalize()
    system = source.phrase(f"rule_{kind}", word=word)
    if source.chance(0.2):
        system = f"{source.phrase('generic_system')} {system}"
    return Rule(system, kind, word)


def styled(segment: Segment, style: Rule, short: str) -> Segment:
    """The segment with its answer rewritten in a style; `short` is its one-word answer."""
    question, answer = segment.messages[-2]["content"], segment.messages[-1]["content"]
    checks: list[Check]
    key = short or answer
    match style.kind:
        case "upper":
            answer = answer.upper()
            checks = [Check("contains_exact", [key.upper()])]
        case "lower":
            answer = answer.lower()
            checks = [Check("contains_exact", [key.lower()])]
        case "end":
            answer = f"{answer} {style.word}"
            checks = [Check("ends", style.word), Check("contains", [key])]
        case "start":
            answer = f"{style.word} {answer}"
            checks = [Check("starts", style.word), Check("contains", [key])]
        case _:
            answer = short
            checks = [Check("exact", short)]
    return turn("persona", question, answer, checks, segment.think)


@dataclass(frozen=True)
class Memory:
    """Something the user tells first (`tell`) and asks for later (`ask`)."""

    tell: Segment
    ask: Segment


def memory(source: Source, kind: str) -> Memory:
    """One thing to remember; `kind` is a suffix of the tell_ and ask_ templates."""
    value, slots = _value(source, kind), {"pet": source.pick(words.PETS)}
    acknowledge = {
        "name": f"Nice to meet you, {value}!",
        "number": f"Okay, I will remember {value}.",
        "pet": f"{value} is a nice name for a {slots['pet']}!",
        "age": f"Okay, you are {value} years old.",
    }.get(kind, f"Okay, {value}. I will remember that.")
    recall = {
        "name": f"Your name is {value}.",
        "number": f"The number is {value}.",
        "colour": f"Your favourite colour is {value}.",
        "city": f"You live in {value}.",
        "pet": f"Your {slots['pet']} is called {value}.",
        "age": f"You are {value} years old.",
        "food": f"Your favourite food is {value}.",
    }[kind]
    checks = [Check("contains_exact", [value])]
    tell = source.ask(f"tell_{kind}", value=value, **slots)
    ask = source.ask(f"ask_{kind}", **slots)
    return Memory(
        turn("memory", tell, acknowledge, checks, f"The user tells me: {value}."),
        turn("memory", ask, recall, checks, f"The user told me: {value}."),
    )


KINDS = ("name", "name", "name", "number", "number", "colour", "city", "pet", "age", "food")


def _value(source: Source, kind: str) -> str:
    if kind == "name" and not source.heldout and source.chance(0.06):
        return words.foreign(source)
    if kind in ("name", "pet"):
        return words.name(source)
    if kind == "number":
        length = source.pick((1, 2, 2, 3, 4, 4, 5, 6))
        return str(int(source.rng.random() * 10**length))
    if kind == "city":
        return words.city(source)
    if kind == "age":
        return str(5 + int(source.rng.random() * 90))
    return source.pick(words.COLOUR_NAMES if kind == "colour" else words.FOODS)


def renamed(source: Source) -> Memory:
    """A correction of the user's name, and the question for it."""
    fresh = memory(source, "name")
    value = fresh.ask.checks[0].expected[0]
    tell = source.ask("rename", value=value)
    answer = f"Okay, I will call you {value}."
    return Memory(turn("memory", tell, answer, fresh.ask.checks, fresh.tell.think), fresh.ask)


def not_told(source: Source) -> Segment:
    """The user asks for a name that was never given."""
    answer = "You have not told me your name yet."
    checks = [Check("contains", ["not told"])]
    return turn("memory", source.ask("ask_name"), answer, checks, "The user gave no name.")
