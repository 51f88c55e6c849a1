"""Compares the variants of one model: text, tasks, size and time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.base import EngineStartError
from engine.config import BUNDLED, EngineConfig
from engine.evaluation.divergence import Totals
from engine.evaluation.pace import ROOM, decode_ms
from engine.evaluation.result import Evaluation, TextQuality, VariantResult
from engine.evaluation.task_set import read_tasks
from engine.evaluation.text_score import TextScore, score_text
from engine.evaluation.variants import (
    REFERENCE,
    Variant,
    default_names,
    open_all,
    prepare_variants,
)
from engine.models.evaluate import EvalItem, EvalTable
from engine.onnx.engine import OnnxEngine
from engine.onnx.hardware import physical_cores
from gateway.evaluation.asker import MAX_ANSWER_TOKENS, examine
from gateway.evaluation.text import Text, built_in_text, read_text
from gateway.stage_progress import Tell

LONGEST_CONTEXT = 1024
BUILT_IN_TASKS = "the bundled model's skills"


@dataclass(frozen=True, slots=True)
class Wish:
    """What to compare, and on what.

    Attributes:
        variants: precisions or folders of prepared variants; empty: all that make sense.
        with_reference: whether fp32 is added where it was not named.
        text, tasks: files; None for both takes what is built in.
        tokens: most tokens of the text to score.
        context, stride: of the sliding windows, in tokens; None: 1,024 or what the model
            takes, and half of that.
    """

    model: str
    variants: Sequence[str] = ()
    with_reference: bool = True
    text: Path | None = None
    tasks: Path | None = None
    per_skill: int = 50
    tokens: int = 4096
    context: int | None = None
    stride: int | None = None
    threads: int | None = None
    max_answer_tokens: int = MAX_ANSWER_TOKENS


def compare(wish: Wish, cache_dir: Path, say: Tell) -> Evaluation:
    """Run the whole evaluation. Blocks; may take minutes.

    Raises:
        EngineError: with the cause and the fix.
    """
    items, about = chosen_tasks(wish)
    config = EngineConfig(model=wish.model, kind="onnx", cache_dir=cache_dir, threads=wish.threads)
    variants = prepare_variants(wish.model, chosen_names(wish), config, say)
    reference = next((one.name for one in variants if one.name == REFERENCE), None)
    text = chosen_text(wish, variants[0])
    context, stride = chosen_window(wish, variants[0])
    pace, scores = measure(wish, variants, text, reference, context, stride, say)
    asked = [one for one in variants if items and one.served]
    tables = {one.name: scored(one, items, config, wish, say) for one in asked}
    return Evaluation(
        model=wish.model,
        reference=reference,
        variants=[
            VariantResult(
                name=one.name,
                megabytes=one.size / 1e6,
                token_ms=pace[one.name],
                text=quality(scores[one.name], compared=reference is not None) if scores else None,
                tasks=tables.get(one.name),
            )
            for one in variants
        ],
        text=text.label if text else "",
        tasks=about,
        threads=wish.threads or physical_cores(),
        settings={"context": context, "stride": stride, "tokens": len(text.ids)} if text else {},
    )


def chosen_names(wish: Wish) -> list[str]:
    """The variants to compare, the reference first."""
    asked = list(dict.fromkeys(wish.variants)) or default_names(wish.model)
    if REFERENCE in asked:
        asked.remove(REFERENCE)
        return [REFERENCE, *asked]
    can_have = wish.with_reference and REFERENCE in default_names(wish.model)
    return [REFERENCE, *asked] if can_have else asked


def chosen_tasks(wish: Wish) -> tuple[list[EvalItem], str]:
    """The tasks, and what they are for people; none where only a text was asked for."""
    if wish.tasks is not None:
        items = read_tasks(wish.tasks)
        return items, f"{len(items)} tasks of {wish.tasks.name}"
    if wish.model == BUNDLED and wish.text is None:
        from engine.models.bundled.heldout import items as exam

        found = list(exam(wish.per_skill))
        return found, f"{len(found)} tasks of {BUILT_IN_TASKS}"
    return [], ""


def chosen_text(wish: Wish, variant: Variant) -> Text | None:
    """The tokens to score; None where only tasks were asked for."""
    if wish.text is not None:
        return read_text(wish.text, variant.model, wish.tokens)
    if wish.tasks is not None:
        return None
    return built_in_text(variant.model, wish.tokens)


def chosen_window(wish: Wish, variant: Variant) -> tuple[int, int]:
    """Context and stride; raises EngineStartError for ones that do not fit."""
    most = variant.model.manifest.max_model_len
    context = wish.context or min(LONGEST_CONTEXT, most)
    if not 2 <= context <= most:
        raise EngineStartError(f"--context must be from 2 to {most}, which the model takes")
    stride = wish.stride or context // 2
    if stride >= context:
        raise EngineStartError(
            f"--stride must be below the context ({context}), or tokens would have nothing before "
            "them"
        )
    return context, stride


def measure(
    wish: Wish,
    variants: Sequence[Variant],
    text: Text | None,
    reference: str | None,
    context: int,
    stride: int,
    say: Tell,
) -> tuple[dict[str, float], dict[str, TextScore]]:
    """Milliseconds per generated token of each variant, and their scores on the text."""
    say("opening the variants", None)
    sessions = open_all(variants, max(context, ROOM), wish.threads)
    try:
        say("measuring time per token", None)
        pace = decode_ms(sessions, text.ids if text else [0, 1])
        if text is None:
            return pace, {}
        stage = "scoring the text"
        scores = score_text(
            sessions,
            text.ids,
            reference=reference,
            context=context,
            stride=stride,
            report=lambda part: say(stage, part),
        )
        return pace, scores
    finally:
        sessions.clear()
        gc.collect()


def scored(
    variant: Variant, items: list[EvalItem], config: EngineConfig, wish: Wish, say: Tell
) -> EvalTable:
    """Ask one variant every task."""
    engine = OnnxEngine(config, folder=variant.model.folder)
    stage = f"{variant.name}: asking {len(items)} tasks"
    report = examine(engine, items, lambda part: say(stage, part), wish.max_answer_tokens)
    return asyncio.run(report)


def quality(score: TextScore, *, compared: bool) -> TextQuality:
    """The figures of one variant."""
    totals: Totals = score.totals
    return TextQuality(
        perplexity=totals.perplexity,
        prompt_ms=score.seconds / score.tokens_run * 1000,
        agreement=totals.agreement if compared else None,
        kl=totals.mean_kl if compared else None,
        added_nll=totals.added_nll if compared else None,
        added_nll_error=totals.added_nll_error if compared else None,
    )
