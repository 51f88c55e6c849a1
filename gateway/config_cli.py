"""``llm-gateway config``: check, show, compare and describe the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from gateway.terminal import fail

if TYPE_CHECKING:
    from gateway.config.snapshot import Snapshot

config_app = typer.Typer(help="Look at the configuration.", no_args_is_help=True)

EnvFile = Annotated[Path, typer.Option(help="In place of .env in the working directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DOT_ENV = Path(".env")


@config_app.command("example")
def config_example() -> None:
    """Print .env.example: every setting with its default and what it means."""
    from gateway.settings_example import example

    typer.echo(example(), nl=False)


@config_app.command("check")
def check(env_file: EnvFile = DOT_ENV) -> None:
    """Check environment, .env, gateway.yaml and prices as a start does. Exit code 0 or 1."""
    snapshot = read(env_file)
    models = ", ".join(model.name for model in snapshot.routing.models)
    typer.echo(f"the configuration is usable: models {models}; hash {snapshot.digest}")


@config_app.command("show")
def show(
    env_file: EnvFile = DOT_ENV,
    every: Annotated[bool, typer.Option("--all", help="Defaults as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the configuration that a start would use and where it comes from; no secrets."""
    from gateway.config.show import entries

    snapshot = read(env_file)
    found = entries(snapshot)
    if as_json:
        cards = [entry.card() for entry in found]
        return print_json({"hash": snapshot.digest, "settings": cards})
    for entry in found:
        if every or entry.source != "default":
            typer.echo(f"{entry.name} = {text_of(entry.value)}  ({entry.source})")


@config_app.command("diff")
def diff(
    other_env: Annotated[
        Path | None, typer.Option("--to-env", help="Another .env to compare with.")
    ] = None,
    other_file: Annotated[
        Path | None, typer.Option("--to-file", help="Another gateway.yaml to compare with.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="The server to ask; absent: the one that the settings here start."),
    ] = None,
    key: Annotated[
        str, typer.Option(help="Its admin key.", envvar="LLM_GATEWAY_ADMIN_KEY", show_envvar=True)
    ] = "",
    env_file: EnvFile = DOT_ENV,
    as_json: AsJson = False,
) -> None:
    """Show what would change: on a running server, or from here to other files.

    A running server is asked: it reads its own environment and files again and compares them
    with what is in force. Each change says whether a reload takes it or it needs a restart.
    """
    if other_env is None and other_file is None:
        found = ask_server(url or url_here(env_file), key)
    else:
        found = compare_files(env_file, other_env or env_file, other_file)
    if as_json:
        return print_json({"changes": found})
    for change in found:
        before, after = text_of(change["before"]), text_of(change["after"])
        shown = f"{before} -> {after}" if before != after else f"{after} (another value)"
        typer.echo(f"{change['applies']:7}  {change['name']}: {shown}")
    if not found:
        typer.echo("no difference")


@config_app.command("schema")
def schema(
    settings: Annotated[
        bool, typer.Option("--settings", help="Of the settings instead of gateway.yaml.")
    ] = False,
) -> None:
    """Print the JSON Schema of gateway.yaml, for editors and checks before a roll-out."""
    from gateway.config.schema import file_schema, settings_schema

    print_json(settings_schema() if settings else file_schema())


def compare_files(env_file: Path, other_env: Path, other_file: Path | None) -> list[dict[str, Any]]:
    """What changes from the configuration here to another one."""
    from gateway.config.plan import plan
    from gateway.config.snapshot import ConfigInvalid

    present = read(env_file)
    other = read(other_env, {} if other_file is None else {"config_file": other_file})
    try:
        found = plan(present, other)
    except ConfigInvalid as error:
        fail(str(error))
    return [change.card() for change in [*found.applied, *found.waiting]]


def url_here(env_file: Path) -> str:
    """Where a server with the configuration here answers operators."""
    from gateway.banner import reachable_host

    settings = read(env_file).settings
    if settings.admin_port is not None:
        return f"http://{reachable_host(settings.admin_host)}:{settings.admin_port}"
    return f"http://{reachable_host(settings.host)}:{settings.aip_http_port or settings.port}"


def ask_server(url: str, key: str) -> list[dict[str, Any]]:
    """What a reload of a running server would change, and what would wait for a restart."""
    import httpx

    headers = {"authorization": f"Bearer {key}"} if key else {}
    address = f"{url.rstrip('/')}/admin/config/pending"
    try:
        reply = httpx.get(address, headers=headers, timeout=60)
        document = reply.json()
    except httpx.HTTPError as error:
        fail(f"{address} does not answer: {error}; is the server running, and on that --url?")
    except ValueError:
        fail(f"{address} does not answer as llm-gateway does; check --url")
    if reply.status_code != 200:
        fail(str(document.get("error", {}).get("message", f"status {reply.status_code}")))
    changes: list[dict[str, Any]] = [*document["changed"], *document["requires_restart"]]
    return changes


def read(env_file: Path, given: dict[str, Any] | None = None) -> Snapshot:
    """The configuration; ends the command with every fault where it is not usable."""
    from gateway.config.snapshot import ConfigInvalid, read_snapshot

    if env_file != DOT_ENV and not env_file.is_file():
        fail(f"{env_file} is no file; give the path of an .env file")
    try:
        return read_snapshot(given or {}, env_file)
    except ConfigInvalid as error:
        fail(f"the configuration is not usable:\n{error}")


def text_of(value: Any) -> str:
    """A value on one line."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def print_json(document: dict[str, Any]) -> None:
    """For programs."""
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
