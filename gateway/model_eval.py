"""``llm-gateway model eval``: scores the bundled model through the engine that serves it."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.base import Engine, GenerateRequest
from engine.config import EngineConfig
from engine.models.bundled.heldout import items
from engine.models.evaluate import EvalTable, Messages, Tools, evaluate
from engine.registry import build_engine
from gateway.chat.prompt import PromptBuilder
from gateway.protocol.chat_request import read_chat_request

MAX_ANSWER_TOKENS = 160
CONCURRENCY = 8


def run_evaluation(per_skill: int, *, with_fp32: bool) -> bool:
    """Print the table; returns whether the served variant reaches the thresholds."""
    console = Console()
    served = EngineConfig(kind="onnx")
    label, score = asyncio.run(score_variant(served, per_skill))
    reference: EvalTable | None = None
    if with_fp32 and label != "fp32":
        if importlib.util.find_spec("torch") is None:
            console.print("fp32 is left out: it needs the extra 'convert'.")
        else:
            _, reference = asyncio.run(score_variant(replace(served, precision="fp32"), per_skill))
    console.print(table_of(label, score, reference))
    return score.passed


async def score_variant(config: EngineConfig, per_skill: int) -> tuple[str, EvalTable]:
    """The precision that was served, and its scores."""
    engine = build_engine(config)
    await engine.start()
    try:
        asker = Asker(engine)
        scores = await evaluate(asker.ask, items(per_skill), CONCURRENCY)
        quantization = engine.info.quantization
        return ("fp32" if quantization == "none" else quantization), scores
    finally:
        await engine.stop(0)


class Asker:
    """Asks an engine greedily, through the same prompt path as requests."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._prompts = PromptBuilder(engine.info)
        self._numbers = itertools.count()

    async def ask(self, messages: Messages, tools: Tools) -> str:
        """The raw answer, tool-call tags included."""
        body: dict[str, Any] = {
            "messages": as_request(messages),
            "temperature": 0,
            "max_tokens": MAX_ANSWER_TOKENS,
        }
        if tools:
            body["tools"] = tools
        prompt = await self._prompts.build(read_chat_request(body))
        request = GenerateRequest(f"eval-{next(self._numbers)}", prompt.ids, prompt.sampling)
        async with aclosing(self._engine.generate(request)) as deltas:
            return "".join([delta.text async for delta in deltas])


def as_request(messages: Messages) -> Messages:
    """The exam's messages as a client sends them: call ids, and arguments as JSON text."""
    sent = []
    for position, message in enumerate(messages):
        copy = dict(message)
        if "tool_calls" in message:
            copy["tool_calls"] = [
                {
                    "id": f"call_{position}_{number}",
                    "type": "function",
                    "function": {
                        "name": call["function"]["name"],
                        "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
                    },
                }
                for number, call in enumerate(message["tool_calls"])
            ]
        if message["role"] == "tool":
            copy["tool_call_id"] = f"call_{position - 1}_0"
        sent.append(copy)
    return sent


def table_of(label: str, score: EvalTable, reference: EvalTable | None) -> Table:
    """Accuracy per skill, and beside it fp32 and what is lost to it."""
    table = Table(title="Bundled model on held-out prompts")
    table.add_column("skill")
    for name in ("correct", "total", label):
        table.add_column(name, justify="right")
    if reference is not None:
        table.add_column("fp32", justify="right")
        table.add_column("loss", justify="right")
    exact = {entry.skill: entry.accuracy for entry in reference.scores} if reference else {}

    def add(skill: str, correct: int, total: int, ours: float, theirs: float) -> None:
        row = [skill, str(correct), str(total), f"{ours:.1%}"]
        if reference is not None:
            row += [f"{theirs:.1%}", f"{theirs - ours:+.1%}"]
        table.add_row(*row)

    for entry in score.scores:
        theirs = exact.get(entry.skill, 0.0)
        add(entry.skill, entry.correct, entry.total, entry.accuracy, theirs)
    table.add_section()
    correct = sum(entry.correct for entry in score.scores)
    total = sum(entry.total for entry in score.scores)
    add("overall", correct, total, score.overall, reference.overall if reference else 0.0)
    return table
