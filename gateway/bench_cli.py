"""``llm-gateway bench``: loads a server and measures it, or compares two results."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gateway.terminal import fail

EXAMPLES = """
Load any OpenAI-compatible server and measure it.

Examples:

\b
  llm-gateway bench --concurrency 8 --num-prompts 200
  llm-gateway bench --request-rate 4 --duration 60 --goodput ttft:200 --goodput itl:50
  llm-gateway bench --concurrency 1,2,4,8,16 --input-len lognormal:300:2000 --output-len 128
  llm-gateway bench --base-url https://host/v1 --api-key KEY --model NAME --prompts my.jsonl
  llm-gateway bench --trace trace.jsonl --out run.json --html run.html
  llm-gateway bench --against http://127.0.0.1:9000/v1 --rounds 10
  llm-gateway bench compare before.json after.json
"""

bench_app = typer.Typer(help=EXAMPLES, invoke_without_command=True)

Load = "Load"
Requests = "Requests"
Results = "Results"


class Endpoint(StrEnum):
    """Where requests go."""

    CHAT = "chat"
    COMPLETIONS = "completions"


@bench_app.callback()
def bench(
    context: typer.Context,
    base_url: Annotated[
        str, typer.Option(help="An OpenAI-compatible server.", envvar="OPENAI_BASE_URL")
    ] = "http://127.0.0.1:8000/v1",
    api_key: Annotated[str | None, typer.Option(help="Its key.", envvar="OPENAI_API_KEY")] = None,
    model: Annotated[str | None, typer.Option(help="Absent: the server's first.")] = None,
    endpoint: Annotated[Endpoint, typer.Option(help="Chat or text completions.")] = Endpoint.CHAT,
    header: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE to send with every request; repeatable.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="Certificates to trust instead of the system's.")
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(
            "--concurrency",
            "--max-concurrency",
            help="Closed loop: so many callers; 1,2,4 makes three stages. With --request-rate or"
            " --trace: a bound.  [default: 8]",
            rich_help_panel=Load,
        ),
    ] = None,
    request_rate: Annotated[
        str | None,
        typer.Option(
            help="Open loop: requests per second at random moments; 1,2,4 makes three stages.",
            rich_help_panel=Load,
        ),
    ] = None,
    burstiness: Annotated[
        float,
        typer.Option(
            help="1: Poisson; less: bursts; more: regular; inf: a metronome.", rich_help_panel=Load
        ),
    ] = 1.0,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Open loop: JSONL with 'timestamp' and 'input_length', 'output_length' or a"
            " prompt.",
            rich_help_panel=Load,
        ),
    ] = None,
    trace_unit: Annotated[
        float,
        typer.Option(
            min=1e-9, help="Seconds per 1 of a timestamp: 0.001 for ms.", rich_help_panel=Load
        ),
    ] = 1.0,
    trace_speed: Annotated[
        float, typer.Option(min=1e-6, help="2: twice as fast.", rich_help_panel=Load)
    ] = 1.0,
    num_prompts: Annotated[
        int | None,
        typer.Option(min=1, help="Requests per stage.  [default: 100]", rich_help_panel=Load),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(min=0.1, help="Seconds of sending per stage.", rich_help_panel=Load),
    ] = None,
    num_warmups: Annotated[
        int, typer.Option(min=0, help="Requests before, not measured.", rich_help_panel=Load)
    ] = 1,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds per request.", rich_help_panel=Load)
    ] = 600.0,
    seed: Annotated[
        int, typer.Option(help="Equal seeds send equal load.", rich_help_panel=Load)
    ] = 0,
    input_len: Annotated[
        str | None,
        typer.Option(
            help="Prompt tokens: 128, uniform:64:256, normal:MEAN:DEVIATION,"
            " lognormal:MEDIAN:P95, exponential:MEAN, each with :min=N :max=N.  [default: 128]",
            rich_help_panel=Requests,
        ),
    ] = None,
    output_len: Annotated[
        str | None,
        typer.Option(help="Output tokens, likewise.  [default: 128]", rich_help_panel=Requests),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="JSONL with 'prompt' or 'messages', and 'output_tokens' if wanted.",
            rich_help_panel=Requests,
        ),
    ] = None,
    ignore_eos: Annotated[
        bool | None,
        typer.Option(
            "--ignore-eos/--no-ignore-eos",
            help="Go on to the full length.  [default: for synthetic prompts]",
            rich_help_panel=Requests,
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Absent: the server's.", rich_help_panel=Requests)
    ] = None,
    extra_body: Annotated[
        str | None,
        typer.Option(help="JSON object added to every request.", rich_help_panel=Requests),
    ] = None,
    goodput: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME:MILLISECONDS of ttft, itl, tpot or e2el; repeatable.",
            rich_help_panel=Results,
        ),
    ] = None,
    percentiles: Annotated[
        str, typer.Option(help="Percentiles of every time.", rich_help_panel=Results)
    ] = "90,95,99",
    label: Annotated[
        str | None, typer.Option(help="Name of this run.", rich_help_panel=Results)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write JSON here.", rich_help_panel=Results)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a report with plots here.", rich_help_panel=Results)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, no tables.", rich_help_panel=Results)
    ] = False,
    measure_overhead: Annotated[
        bool,
        typer.Option(
            help="Also measure what the generator adds to each time.", rich_help_panel=Results
        ),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(help="A second server, loaded in turns.", rich_help_panel="Two servers"),
    ] = None,
    against_api_key: Annotated[
        str | None, typer.Option(help="Absent: --api-key.", rich_help_panel="Two servers")
    ] = None,
    against_model: Annotated[
        str | None,
        typer.Option(help="Absent: that server's first.", rich_help_panel="Two servers"),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=2, help="Turns of each server.", rich_help_panel="Two servers")
    ] = 6,
) -> None:
    if context.invoked_subcommand is not None:
        return
    from gateway.bench.command import read_object, run_and_show, server_of
    from gateway.bench.errors import BenchError
    from gateway.bench.lengths import read_lengths
    from gateway.bench.options import (
        BenchOptions,
        read_numbers,
        read_objectives,
        read_whole_numbers,
    )

    try:
        name = label or ("server" if against is None else "A")
        servers = [server_of(name, base_url, api_key, model, header, ca_file)]
        if against is not None:
            key, other = against_api_key or api_key, "A" if name == "B" else "B"
            servers.append(server_of(other, against, key, against_model, header, ca_file))
        options = BenchOptions(
            servers=tuple(servers),
            endpoint="chat" if endpoint is Endpoint.CHAT else "completions",
            rates=read_numbers(request_rate, "--request-rate"),
            concurrencies=read_whole_numbers(concurrency, "--concurrency"),
            burstiness=burstiness,
            trace=trace,
            trace_unit_s=trace_unit,
            trace_speed=trace_speed,
            requests=num_prompts,
            duration_s=duration,
            input_len=None if input_len is None else read_lengths(input_len, "--input-len"),
            output_len=None if output_len is None else read_lengths(output_len, "--output-len"),
            prompts=prompts,
            seed=seed,
            ignore_eos=ignore_eos,
            temperature=temperature,
            extra_body=read_object(extra_body),
            objectives=read_objectives(goodput or []),
            percentiles=read_numbers(percentiles, "--percentiles"),
            timeout_s=timeout,
            warmups=num_warmups,
            rounds=rounds,
        )
        options.check()
    except BenchError as error:
        fail(str(error))
    run_and_show(options, out=out, html=html, as_json=as_json, overhead=measure_overhead)


@bench_app.command("compare")
def compare_files(
    files: Annotated[
        list[Path], typer.Argument(help="Two results, or one of a run with --against.")
    ],
    out: Annotated[Path | None, typer.Option(help="Write the comparison as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report with plots.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, no table.")] = False,
) -> None:
    """Compare two results: the second less the first, and whether that is more than noise.

    Takes files of llm-gateway bench --out and of vllm bench serve --save-result; intervals need
    single requests (--save-detailed there).
    """
    from gateway.bench.command import compare_and_show

    compare_and_show(files, out=out, html=html, as_json=as_json)
