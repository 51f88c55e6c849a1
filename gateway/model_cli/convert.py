"""``llm-gateway model convert``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gateway.terminal import fail


class PrecisionName(StrEnum):
    """Variants of the weights; see docs/models.md."""

    fp32 = "fp32"
    int8 = "int8"
    int8_block = "int8_block"
    int4 = "int4"


def convert_model(
    source: Annotated[
        str,
        typer.Argument(help="bundled, a Hugging Face folder, a hub id, or an ONNX file or folder."),
    ],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    precision: Annotated[
        PrecisionName | None,
        typer.Option(help="Default: int8 for a decoder, fp32 for an encoder."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help='Prompts to compare on: one per line, or .jsonl with "prompt".'),
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=1, max=4096, help="Greedy tokens to compare, per prompt.")
    ] = 32,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a hub id.", envvar="REVISION")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a converted model at --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Convert a model for the ONNX engine, and compare it with its PyTorch original.

    Decoders and encoders of the families in docs/models.md become a folder for MODEL_NAME.

    Any other ONNX graph is checked and taken as it is. Needs the extra 'convert'.

    Examples:

        llm-gateway model convert ./distilgpt2 --out ./distilgpt2-int8

        llm-gateway model convert HuggingFaceTB/SmolLM2-135M-Instruct --out smollm --precision int4

        llm-gateway model convert ./bge-small --out ./bge --precision fp32

        llm-gateway model convert ./recommender.onnx --out ./recommender
    """
    import json
    from dataclasses import asdict

    from rich.console import Console

    from engine.base import EngineStartError
    from engine.models.compare import read_prompts
    from engine.models.convert_to import Wish, convert_to
    from gateway.model_convert import print_conversion
    from gateway.settings import SettingsError, load_settings
    from gateway.stage_progress import stage_progress

    try:
        wish = Wish(
            source=source,
            out=out,
            precision=None if precision is None else precision.value,
            force=force,
            prompts=read_prompts(prompts) if prompts else (),
            tokens=tokens,
            revision=revision,
        )
        with stage_progress() as tell:
            done = convert_to(wish, load_settings().model_cache_dir, tell)
    except (EngineStartError, SettingsError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        typer.echo(
            f"llm-gateway: interrupted: {out} was not made; downloaded files are kept, so the same "
            "command goes on with the next one",
            err=True,
        )
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=2, ensure_ascii=False))
    else:
        print_conversion(done, Console())
