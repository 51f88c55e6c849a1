"""The corpus of the bundled model: deterministic, and apart from the exam."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from typing import Any

from engine.models.bundled import heldout
from engine.models.bundled.corpus import exact, mix, words
from engine.models.bundled.corpus.finishing_families import FINISHING_FAMILIES
from engine.models.bundled.corpus.source import Source
from engine.models.bundled.corpus.tool_families import (
    COMPOSED_ASKS,
    COMPOSED_SINGLE_ASKS,
    HELDOUT_COMPOSED_ASKS,
    HELDOUT_FAMILIES,
)
from engine.models.evaluate import SKILLS, EvalItem, is_correct


def _normal(template: str) -> str:
    """A template without case and punctuation, which the training noise varies anyway."""
    return re.sub(r"[^\w{}+=-]+", " ", template.lower()).strip()


def _gold(segment_messages: list[dict[str, Any]]) -> str:
    last = segment_messages[-1]
    if last.get("tool_calls"):
        return f"<tool_call>\n{json.dumps(last['tool_calls'][0]['function'])}\n</tool_call>"
    return str(last["content"])


def test_same_seed_gives_the_same_conversations() -> None:
    first, second = list(mix.conversations(3, 200)), list(mix.conversations(3, 200))
    assert first == second
    assert first != list(mix.conversations(4, 200))


def test_templates_of_training_and_exam_are_disjoint() -> None:
    assert set(heldout.HELDOUT_BANK) == set(mix.TRAIN_BANK)
    for key, templates in heldout.HELDOUT_BANK.items():
        trained = {_normal(template) for template in mix.TRAIN_BANK[key]}
        assert not trained & {_normal(template) for template in templates}, key


def test_tool_requests_of_training_and_exam_are_disjoint() -> None:
    trained = {_normal(ask) for family in FINISHING_FAMILIES for ask in family.asks}
    trained |= {_normal(ask) for ask in (*COMPOSED_ASKS, *COMPOSED_SINGLE_ASKS)}
    examined = {_normal(ask) for family in HELDOUT_FAMILIES for ask in family.asks}
    examined |= {_normal(ask) for ask in HELDOUT_COMPOSED_ASKS}
    assert not trained & examined


def test_values_of_training_and_exam_are_disjoint() -> None:
    assert not set(words.NAMES) & set(words.HELDOUT_NAMES)
    assert not set(words.WORDS) & set(words.HELDOUT_WORDS)
    assert not set(words.CITIES) & set(words.HELDOUT_CITIES)
    for is_exam in (False, True):
        source = Source(random.Random(5), heldout.HELDOUT_BANK, heldout=is_exam)
        for _ in range(300):
            numbers = re.findall(r"\d+", exact.arithmetic(source).after_thinking)
            assert exact.is_heldout_pair(int(numbers[0]), int(numbers[1])) is is_exam


def test_exam_covers_every_skill_and_is_deterministic() -> None:
    items = list(heldout.items(6))
    assert items == list(heldout.items(6))
    assert [item.skill for item in items] == [skill for skill in SKILLS for _ in range(6)]
    for item in items:
        assert item.messages[-1]["role"] in ("user", "tool")
        assert item.checks


def test_right_answers_of_training_satisfy_their_checks() -> None:
    source = Source(random.Random(9), mix.TRAIN_BANK)
    for _ in range(500):
        segment = mix.plain_segment(source)
        item = EvalItem(segment.skill, segment.messages[:-1], None, segment.checks)
        assert is_correct(_gold(segment.messages), item), segment
        assert not is_correct("Hm.", item), segment


def test_importing_the_exam_loads_nothing_heavy() -> None:
    code = (
        "import sys, engine.models.evaluate, engine.models.bundled.heldout;"
        "assert not {'torch', 'transformers', 'tokenizers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
