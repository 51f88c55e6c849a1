"""``llm-gateway keys``: make, list, show, change, rotate and revoke API keys; read the audit log.

Works on DATA_DIR directly, whether or not a server runs; running servers notice within a second.
Whoever may write there is the operator and may do anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gateway.terminal import fail

if TYPE_CHECKING:
    from gateway.control.identity.audit import Actor
    from gateway.control.identity.manage import KeyAdmin

T = TypeVar("T")
Json = dict[str, Any]

keys_app = typer.Typer(
    help="Make and manage API keys, in DATA_DIR. Running servers notice within a second.",
    no_args_is_help=True,
)

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where the keys are; absent: as the server has it (DATA_DIR)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="The public id, key_…")]
Title = Annotated[str | None, typer.Option("--name", help="What it is for, for people.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", help="A model name it may use; repeat for several; none: no model. Absent: all."
    ),
]
Endpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint",
        help="A group it may use (chat, completions, responses, messages, embeddings, tokens, "
        "files, batches, predict, models, metrics); repeat for several; none: none. Absent: all.",
    ),
]
HighestClass = Annotated[
    str | None, typer.Option("--class", help="interactive, default or batch: its highest priority.")
]
Sources = Annotated[
    list[str] | None,
    typer.Option("--source", help="A network it may be used from; repeat. Absent: anywhere."),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=N",
        help="requests_per_second|minute|day, tokens_per_second|minute|day, concurrent_requests, "
        "usd_per_day|month; repeat for several.",
    ),
]
Admin = Annotated[
    str | None,
    typer.Option("--admin", help="Let it use the admin API for its project, organisation, server."),
]
Weight = Annotated[float | None, typer.Option(help="Share of a busy engine; 1 unless given.")]
Expires = Annotated[
    str | None,
    typer.Option(help="When it ends: 12h, 30d, 2027-01-31 or 2027-01-31T12:00Z. Absent: never."),
]


@keys_app.command(
    epilog="Examples:\n\n"
    "llm-gateway keys create --name laptop\n\n"
    "llm-gateway keys create --organisation acme --project web --model bundled --endpoint chat "
    "--limit requests_per_minute=60 --expires 30d\n\n"
    "llm-gateway keys create --name operations --admin server --endpoint metrics"
)
def create(
    name: Title = None,
    organisation: Annotated[str | None, typer.Option(help="Whose key it is.")] = None,
    project: Annotated[str | None, typer.Option(help="Of the organisation.")] = None,
    model: Models = None,
    endpoint: Endpoints = None,
    highest_class: HighestClass = None,
    source: Sources = None,
    limit: Limits = None,
    admin: Admin = None,
    weight: Weight = None,
    expires: Expires = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once. It may do everything unless it is limited here."""
    from gateway.keys_input import expiry_of, rights_of

    def act(keys: KeyAdmin, actor: Actor) -> Json:
        asked: Json = {"name": name, "organisation": organisation, "project": project}
        asked = {field: value for field, value in asked.items() if value is not None}
        asked["rights"] = rights_of(model, endpoint, highest_class, source, limit, admin, weight)
        key, secret = keys.create(actor, asked | expiry_of(expires))
        return {**key.card(), "key": secret.text}

    show_key(run(data_dir, act), as_json=as_json)


@keys_app.command("list", epilog="Example: llm-gateway keys list --organisation acme")
def list_keys(
    organisation: Annotated[str | None, typer.Option(help="Only its keys.")] = None,
    project: Annotated[str | None, typer.Option(help="Only its keys.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Every key, newest first, ended ones included."""
    from gateway.keys_output import keys_table

    def act(keys: KeyAdmin, actor: Actor) -> list[Json]:
        found: list[Json] = []
        more, after = True, None
        while more:
            page, more = keys.page(
                actor, organisation=organisation, project=project, after=after, limit=1000
            )
            found += [key.card() for key in page]
            after = page[-1].id if page else None
        return found

    found = run(data_dir, act)
    if as_json:
        print_json(found)
    elif found:
        print_rich(keys_table(found))
    else:
        typer.echo("There are no keys yet. Make one with: llm-gateway keys create")


@keys_app.command(epilog="Example: llm-gateway keys show key_3f9a0c1b2d4e")
def show(key_id: KeyId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """One key: its rights and what has become of it. Its secret cannot be shown again."""
    show_key(run(data_dir, lambda keys, actor: keys.get(actor, key_id).card()), as_json=as_json)


@keys_app.command(epilog="Example: llm-gateway keys update key_3f9a0c1b2d4e --expires 90d")
def update(
    key_id: KeyId,
    name: Title = None,
    model: Models = None,
    endpoint: Endpoints = None,
    highest_class: HighestClass = None,
    source: Sources = None,
    limit: Limits = None,
    admin: Admin = None,
    weight: Weight = None,
    expires: Expires = None,
    rights: Annotated[
        str | None,
        typer.Option(help='Any rights as JSON, such as {"models": null} for all models.'),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given; a list that is given replaces the one that was."""
    from gateway.keys_input import expiry_of, json_of, rights_of

    def act(keys: KeyAdmin, actor: Actor) -> Json:
        changed = rights_of(model, endpoint, highest_class, source, limit, admin, weight)
        asked: Json = {"rights": changed | json_of(rights)} | expiry_of(expires)
        if name is not None:
            asked["name"] = name
        return keys.update(actor, key_id, asked).card()

    show_key(run(data_dir, act), as_json=as_json)


@keys_app.command(
    epilog="Examples:\n\nllm-gateway keys rotate key_3f9a0c1b2d4e\n\n"
    "llm-gateway keys rotate key_3f9a0c1b2d4e --grace 0  (when the old secret has leaked)"
)
def rotate(
    key_id: KeyId,
    grace: Annotated[
        str, typer.Option(help="How long the present secret works on: 0, 30m, 12h, 7d.")
    ] = "24h",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret and show it, this once. Its id, rights and objects stay."""
    from gateway.keys_input import seconds_of

    def act(keys: KeyAdmin, actor: Actor) -> Json:
        key, secret = keys.rotate(actor, key_id, {"grace_s": seconds_of(grace, "--grace")})
        return {**key.card(), "key": secret.text}

    show_key(run(data_dir, act), as_json=as_json)


@keys_app.command(epilog="Example: llm-gateway keys revoke key_3f9a0c1b2d4e")
def revoke(key_id: KeyId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """End a key at once and for good."""
    show_key(run(data_dir, lambda keys, actor: keys.revoke(actor, key_id).card()), as_json=as_json)


@keys_app.command(epilog="Example: llm-gateway keys audit --target key_3f9a0c1b2d4e --json")
def audit(
    target: Annotated[str | None, typer.Option(help="Only changes of this key.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, at most.")] = 50,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Who changed what, newest first."""
    from gateway.keys_output import audit_table

    found = run(data_dir, lambda keys, who: keys.audit_page(who, target=target, limit=limit)[0])
    if as_json:
        print_json(found)
    else:
        print_rich(audit_table(found))


def run(data_dir: Path | None, act: Callable[[KeyAdmin, Actor], T]) -> T:
    """What ``act`` returns; ends the command with a readable message when it cannot."""
    from gateway.control.identity.manage import KeyAdmin
    from gateway.control.identity.store import KeyStore, KeyStoreUnavailable
    from gateway.errors import GatewayError
    from gateway.keys_input import operator
    from gateway.settings import SettingsError, load_settings

    try:
        # The server's own refusal to be reachable without a key must not stop the first key.
        folder = data_dir or load_settings(host="127.0.0.1").data_dir
        return act(KeyAdmin(KeyStore(folder)), operator())
    except SettingsError as error:
        fail(f"the settings are not usable:\n{error}")
    except KeyStoreUnavailable as error:
        fail(f"the store of keys cannot be used: {error.cause}")
    except GatewayError as error:
        fail(error.message)


def show_key(card: Json, *, as_json: bool) -> None:
    """Print one key."""
    from gateway.keys_output import key_table

    if as_json:
        print_json(card)
        return
    print_rich(key_table(card))
    if "key" in card:
        # On a line of its own and unwrapped, to be copied.
        typer.echo(f"\n{card['key']}\n")
        typer.echo("Keep it now: it is not stored and cannot be shown again.")


def print_json(document: Any) -> None:
    """For programs."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_rich(table: Any) -> None:
    """For people."""
    from rich.console import Console

    Console().print(table)
