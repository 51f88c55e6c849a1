"""The ``llm-gateway`` command. Each command imports only what it needs."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway import __version__
from gateway.bench_cli import bench_app
from gateway.config_cli import config_app
from gateway.deploy_cli import deploy_app
from gateway.keys_cli import keys_app
from gateway.model_cli import model_app
from gateway.plan_cli import plan
from gateway.terminal import fail
from gateway.triton_cli import triton_app
from gateway.usage_cli import usage

app = typer.Typer(
    name="llm-gateway",
    help="A self-hosted OpenAI-compatible LLM server: gateway and engine in one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(model_app, name="model")
app.add_typer(config_app, name="config")
app.add_typer(bench_app, name="bench")
app.add_typer(keys_app, name="keys")
app.add_typer(triton_app, name="triton")
app.add_typer(deploy_app, name="deploy")
app.command("usage")(usage)
app.command("plan")(plan)


def main() -> None:
    """The entry point of the installed command."""
    app()


def show_version(wanted: bool) -> None:
    """``--version``."""
    if wanted:
        typer.echo(f"llm-gateway {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind (HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind; 0: a free one (PORT).")] = None,
    model: Annotated[
        str | None, typer.Option(help="bundled, a folder, or a hub id (MODEL_NAME).")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="auto, onnx, vllm, fake (ENGINE).")] = None,
) -> None:
    """Serve a model. Settings come from the environment and .env; options override them."""
    from gateway.settings import SettingsError, load_settings

    options = {"host": host, "port": port, "model_name": model, "engine": engine}
    given = {name: value for name, value in options.items() if value is not None}
    try:
        settings = load_settings(**given)
    except SettingsError as error:
        fail(f"the settings are not usable:\n{error}")

    from gateway.routing.load import ConfigError, routing_config

    try:
        routing_config(settings)
    except ConfigError as error:
        fail(f"the configuration is not usable:\n{error}")

    from engine.registry import build_engine, choose
    from gateway.banner import Banner
    from gateway.server import BindError, bind, run

    try:
        vertex_port = settings.aip_http_port if port is None else None
        listener = bind(settings.host, vertex_port or settings.port)
        admin_listener = None
        if settings.admin_port is not None:
            admin_listener = bind(settings.admin_host, settings.admin_port, "ADMIN_")
    except BindError as error:
        fail(str(error))
    banner = Banner(settings, listener.getsockname()[1])
    if admin_listener is not None:
        banner.admin_port = admin_listener.getsockname()[1]
    banner.starting(*choose(settings.engine_config()))
    code = run(
        settings,
        listener,
        build_engine,
        banner.ready,
        admin_listener=admin_listener,
        given=given,
    )
    raise typer.Exit(code)


@app.command()
def chat(
    base_url: Annotated[
        str, typer.Option(help="An OpenAI-compatible server.", envvar="OPENAI_BASE_URL")
    ] = "http://127.0.0.1:8000/v1",
    model: Annotated[str | None, typer.Option(help="Absent: the server's first model.")] = None,
    api_key: Annotated[str | None, typer.Option(help="Its key.", envvar="OPENAI_API_KEY")] = None,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
) -> None:
    """Chat with a model in the terminal. Ctrl-C stops an answer, /exit or Ctrl-D leaves."""
    from gateway.chat_client import ChatError, chat_in_terminal

    try:
        chat_in_terminal(base_url, model, api_key, system)
    except ChatError as error:
        fail(str(error))
