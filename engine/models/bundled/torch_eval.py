# ruff: noqa: T201 - a command that talks to a person
"""Examines a Hugging Face folder with transformers in float32: the reference for all engines.

python -m engine.models.bundled.torch_eval [--model DIR] [--per-skill 50] [--failures]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.models.bundled import heldout, model_dir
from engine.models.evaluate import EvalItem, EvalTable, score

MAX_NEW_TOKENS = 160


def greedy(
    folder: Path, items: Sequence[EvalItem], batch: int = 32, thinking: bool = False
) -> list[str]:
    """Greedy answers in the order of the items, with control tokens removed."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder), padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    prompts = [
        tokenizer.apply_chat_template(
            item.messages,
            tools=item.tools,
            add_generation_prompt=True,
            enable_thinking=thinking,
            tokenize=False,
        )
        for item in items
    ]
    # Prompts of like length share a batch, so that little of it is padding.
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        inputs = tokenizer([prompts[at] for at in chosen], return_tensors="pt", padding=True)
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        texts = tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        for at, text in zip(chosen, texts, strict=True):
            answers[at] = text
    return answers


def examine(folder: Path, per_skill: int, thinking: bool = False) -> EvalTable:
    """The held-out table of a folder."""
    items = list(heldout.items(per_skill))
    return score(items, greedy(folder, items, thinking=thinking))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Examine the bundled model with torch.")
    parser.add_argument("--model", type=Path, default=model_dir())
    parser.add_argument("--per-skill", type=int, default=50)
    parser.add_argument("--thinking", action="store_true", help="use the thinking prompt")
    parser.add_argument("--failures", action="store_true", help="print the wrong answers")
    options = parser.parse_args()
    table = examine(options.model, options.per_skill, options.thinking)
    print(table.render())
    if options.failures:
        for failure in table.failures:
            print("\n---", failure.item.skill, failure.item.checks)
            for message in failure.item.messages:
                print(f"  {message['role']}: {message.get('content') or message['tool_calls']}")
            print(f"  => {failure.answer}")


if __name__ == "__main__":
    main()
