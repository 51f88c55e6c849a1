"""``llm-gateway model eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.terminal import fail


def evaluate_model(
    model: Annotated[str, typer.Argument(help="bundled, a folder or a hub id.")] = "bundled",
    tasks: Annotated[
        Path | None, typer.Option(help="A JSONL of questions with what is right.")
    ] = None,
    text: Annotated[Path | None, typer.Option(help="A text file, for perplexity.")] = None,
    variants: Annotated[
        str | None,
        typer.Option(help="Precisions or folders of prepared variants, comma-separated."),
    ] = None,
    fp32: Annotated[
        bool, typer.Option(help="Compare with the unquantised model (needs the convert extra).")
    ] = True,
    per_skill: Annotated[int, typer.Option(min=1, help="Prompts per skill (bundled).")] = 50,
    tokens: Annotated[int, typer.Option(min=2, help="Most tokens of the text to score.")] = 4096,
    context: Annotated[
        int | None, typer.Option(min=2, help="Tokens of a window; default 1,024 at most.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="From window to window; default half of it.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer to a task.")] = 160,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default the physical cores.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the results as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not tables.")] = False,
) -> None:
    """Measure what quantisation costs: accuracy, perplexity, agreement, size and speed.

    By itself it examines the bundled model as it is served, skill by skill.

    With a model or an option it compares variants side by side: all four precisions, converted
    where need be and cached, or those of --variants. Without --text and --tasks it takes
    conversations that come with the package.

    A line of --tasks has "prompt" or "messages", and "answer", "contains", "regex" or
    "json_schema".

    Examples:

      llm-gateway model eval

      llm-gateway model eval bundled --variants fp32,int8,int8_block,int4 --out eval.json

      llm-gateway model eval ./Qwen3-0.6B --text book.txt --context 2048 --stride 512

      llm-gateway model eval HuggingFaceTB/SmolLM2-135M-Instruct --tasks mine.jsonl
    """
    from engine.base import EngineError
    from engine.config import BUNDLED

    options = (tasks, text, variants, context, stride, threads, out, as_json or None)
    try:
        if model == BUNDLED and all(option is None for option in options):
            from gateway.evaluation.exam import run_evaluation

            passed = run_evaluation(per_skill, with_fp32=fp32)
            raise typer.Exit(0 if passed else 1)

        from gateway.evaluation.compare import Wish
        from gateway.evaluation.show import compare_and_show
        from gateway.model_cli.graph_options import cache_folder

        wish = Wish(
            model=model,
            variants=[name.strip() for name in (variants or "").split(",") if name.strip()],
            with_reference=fp32,
            text=text,
            tasks=tasks,
            per_skill=per_skill,
            tokens=tokens,
            context=context,
            stride=stride,
            threads=threads,
            max_answer_tokens=max_tokens,
        )
        compare_and_show(wish, cache_folder(), out, as_json=as_json)
    except EngineError as error:
        fail(str(error))
    except KeyboardInterrupt:
        typer.echo("stopped: nothing was written", err=True)
        raise typer.Exit(130) from None
