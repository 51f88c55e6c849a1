"""``llm-gateway triton``: model repositories for NVIDIA's Triton Inference Server."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.terminal import fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.triton.repository import Checked

triton_app = typer.Typer(
    help="Write, check and try model repositories for Triton Inference Server.",
    no_args_is_help=True,
)
Install = Annotated[
    bool, typer.Option("--install", help="Make the triton environment if it is missing.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

EXPORT_HELP = """Write a model repository, checked against the model's graph.

\b
  llm-gateway triton export bundled repo                      text to text
  llm-gateway triton export ./my-encoder repo                 texts to vectors
  llm-gateway triton export net.onnx repo --backend onnxruntime --preferred 4,8
  llm-gateway triton export org/name repo --backend vllm --engine-arg quantization=awq
"""


@triton_app.command(help=EXPORT_HELP)
def export(
    source: Annotated[
        str, typer.Argument(help="bundled, a folder, an .onnx file; with vllm also a hub id.")
    ],
    out: Annotated[Path, typer.Argument(help="The repository; made if need be.")],
    name: Annotated[str, typer.Option(help="What clients call it. Default: the source's.")] = "",
    backend: Annotated[str, typer.Option(help="auto, python, onnxruntime, vllm.")] = "auto",
    version: Annotated[int, typer.Option(min=1, help="The version folder.")] = 1,
    max_batch_size: Annotated[
        int | None, typer.Option(min=0, help="Default: 8 where the graph takes batches, else 0.")
    ] = None,
    preferred: Annotated[str, typer.Option(help="Batch sizes that do not wait: 4,8.")] = "",
    queue_delay_us: Annotated[int, typer.Option(min=0, help="How long a batch waits.")] = 500,
    priorities: Annotated[int, typer.Option(min=0, help="Priority levels, 1 is first.")] = 0,
    default_priority: Annotated[int, typer.Option(min=0, help="Default: the middle.")] = 0,
    max_queue_size: Annotated[int, typer.Option(min=0, help="Waiting requests; 0: any.")] = 128,
    queue_timeout_ms: Annotated[int, typer.Option(min=0, help="0: never refuse.")] = 30_000,
    instances: Annotated[int, typer.Option(min=1, help="Copies of the model.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or gpu.")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of a run; 0: all.")] = 0,
    slots: Annotated[int, typer.Option(min=1, help="Sequences generated at once.")] = 4,
    max_model_len: Annotated[int, typer.Option(min=0, help="Default: the model's.")] = 0,
    chat: Annotated[bool, typer.Option(help="Text is a user message, if it can be.")] = True,
    engine_arg: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for vLLM; may be repeated.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    install: Install = False,
    as_json: AsJson = False,
) -> None:
    """See EXPORT_HELP."""
    from deploy.triton.configs import Queueing, Running
    from deploy.triton.kinds import Wishes, plan
    from deploy.triton.repository import write_repository
    from engine.base import EngineStartError

    if backend not in ("auto", "python", "onnxruntime", "vllm"):
        fail(f"--backend {backend} is not one of auto, python, onnxruntime, vllm")
    if device not in ("cpu", "gpu"):
        fail(f"--device {device} is neither cpu nor gpu")
    queueing = Queueing(
        max_batch_size=max_batch_size,
        preferred=sizes(preferred),
        delay_us=queue_delay_us,
        priorities=priorities,
        default_priority=default_priority,
        max_queue_size=max_queue_size,
        timeout_ms=queue_timeout_ms,
    )
    wishes = Wishes(
        name=name,
        backend=backend,  # type: ignore[arg-type]
        queueing=queueing,
        running=Running(instances, device, threads),  # type: ignore[arg-type]
        slots=slots,
        max_model_len=max_model_len,
        chat=chat,
        engine_arguments=arguments(engine_arg or []),
    )
    try:
        parts = plan(source, wishes)
        checked = write_repository(parts, out, environment(install), version=version, force=force)
    except EngineStartError as error:
        fail(str(error))
    show(checked, as_json)


@triton_app.command()
def check(
    repository: Annotated[Path, typer.Argument(help="A folder with a folder per model.")],
    load: Annotated[
        bool, typer.Option("--load", help="Also load it in a real tritonserver, on the CPU.")
    ] = False,
    install: Install = False,
    as_json: AsJson = False,
) -> None:
    """Check configs against Triton's schema, the graphs, and ensembles against their models.

    \b
      llm-gateway triton check repo --load
    """
    from deploy.triton.repository import check_repository
    from deploy.triton.server import Ports, run_server
    from engine.base import EngineStartError

    try:
        python = environment(install)
        checked = check_repository(repository, python)
        if load:
            with run_server(python, repository, Ports.free()) as server:
                server.wait_ready(300)
    except EngineStartError as error:
        fail(str(error))
    show(checked, as_json)


@triton_app.command()
def serve(
    repository: Annotated[Path, typer.Argument(help="A folder with a folder per model.")],
    http_port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535)] = 8001,
    metrics_port: Annotated[int, typer.Option(min=1, max=65535)] = 8002,
    install: Install = False,
) -> None:
    """Try a repository in a real tritonserver on the CPU, on loopback. Ctrl-C ends it.

    \b
      llm-gateway triton serve repo --http-port 9000
    """
    from deploy.triton.repository import check_repository
    from deploy.triton.server import Ports, run_server
    from engine.base import EngineStartError

    # The server's processes have to end with this one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        python = environment(install)
        check_repository(repository, python)
        ports = Ports(http_port, grpc_port, metrics_port)
        with run_server(python, repository, ports, quiet=False) as server:
            code = server.process.wait()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except EngineStartError as error:
        fail(str(error))
    raise typer.Exit(code)


def environment(install: bool) -> Path:
    """The Python of the triton environment; raises EnvironmentMissing."""
    from engine.environments import interpreter, make

    if install:
        return make("triton", lambda text: typer.echo(text, err=True))
    return interpreter("triton")


def sizes(text: str) -> tuple[int, ...]:
    """Batch sizes, separated by commas."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) for part in parts):
        fail(f"--preferred {text} is not a list of batch sizes such as 4,8")
    return tuple(sorted({int(part) for part in parts}))


def arguments(pairs: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs; a value that reads as JSON is taken as such."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            fail(f"--engine-arg {pair} is not NAME=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def show(checked: Sequence[Checked], as_json: bool) -> None:
    """The models, as a table or as JSON on stdout."""
    from deploy.triton.tensors import signature_of

    rows = [
        {
            "model": one.config["name"],
            "backend": one.config.get("backend") or one.config.get("platform", ""),
            "versions": list(one.versions),
            "max_batch_size": one.config.get("max_batch_size", 0),
            "inputs": [str(t) for t in signature_of(one.config, reshaped=False).inputs],
            "outputs": [str(t) for t in signature_of(one.config, reshaped=False).outputs],
            "notes": list(one.notes),
        }
        for one in checked
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(
        Column("model", no_wrap=True), "backend", "versions", "batch", "inputs", "outputs"
    )
    for row in rows:
        cells = (row["versions"], row["inputs"], row["outputs"])
        versions, inputs, outputs = ("\n".join(map(str, cell)) for cell in cells)
        table.add_row(
            row["model"], row["backend"], versions, str(row["max_batch_size"]), inputs, outputs
        )
    Console().print(table)
    for note in (note for row in rows for note in row["notes"]):
        typer.echo(f"note: {note}", err=True)
