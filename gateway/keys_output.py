"""Tables of ``llm-gateway keys``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

Json = dict[str, Any]

STATUS_STYLE = {"active": "green", "expired": "yellow", "revoked": "red"}


def keys_table(cards: list[Json]) -> Table:
    """One line per key."""
    table = Table()
    table.add_column("id", no_wrap=True)
    for title in ("name", "project", "status", "expires", "may use", "made by"):
        table.add_column(title, overflow="fold")
    for card in cards:
        table.add_row(
            card["id"],
            Text(card["name"]),
            f"{card['organisation']}/{card['project']}",
            status_of(card),
            moment(card["expires_at"]),
            Text(summary(card["rights"])),
            Text(card["created_by"]),
        )
    return table


def key_table(card: Json) -> Table:
    """One key, a line per fact."""
    rights = card["rights"]
    table = Table(show_header=False)
    rows: dict[str, Text | str] = {
        "id": card["id"],
        "name": Text(card["name"]),
        "project": f"{card['organisation']}/{card['project']}",
        "status": status_of(card),
        "made": f"{moment(card['created_at'])} by {card['created_by']}",
        "expires": moment(card["expires_at"]),
        "models": listed(rights["models"]),
        "endpoints": listed(rights["endpoints"]),
        "highest class": rights["highest_class"],
        "limits": limits_of(rights),
        "sources": listed(rights["sources"] or None, "anywhere"),
        "admin": f"of its {rights['manages']}" if rights["admin"] else "no",
        "weight": f"{rights['weight']:g}",
    }
    if card["parent"] is not None:
        rows["within"] = f"the rights of {card['parent']}"
    if card["rotated_at"] is not None:
        rows["rotated"] = moment(card["rotated_at"])
    if card["previous_secret_until"] is not None:
        rows["old secret until"] = moment(card["previous_secret_until"])
    if card["revoked_at"] is not None:
        rows["revoked"] = moment(card["revoked_at"])
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def audit_table(entries: list[Json]) -> Table:
    """One line per change."""
    table = Table("at", "who", "from", "what", "of", "changed")
    for entry in entries:
        table.add_row(
            moment(entry["at"]),
            Text(entry["actor"]),
            entry["source"] or "",
            entry["action"],
            Text(entry["target"]),
            Text(", ".join(changed(entry["before"], entry["after"]))),
        )
    return table


def changed(before: Json | None, after: Json | None) -> list[str]:
    """Names of the fields that differ; of rights each by itself."""
    if before is None or after is None:
        return []
    old, new = flat(before), flat(after)
    return sorted(name for name in old | new if old.get(name) != new.get(name))


def flat(card: Json) -> Json:
    """A card with its rights beside its other fields."""
    rights: Json = card.get("rights", {})
    return card | rights | {"rights": None}


def status_of(card: Json) -> Text:
    """The status in its colour."""
    return Text(card["status"], STATUS_STYLE[card["status"]])


def summary(rights: Json) -> str:
    """Rights in a few words."""
    parts = [
        f"{name}: {', '.join(rights[name])}" for name in ("models", "endpoints") if rights[name]
    ]
    parts += [f"no {name}" for name in ("models", "endpoints") if rights[name] == []]
    if rights["limits"]:
        parts.append(limits_of(rights))
    if rights["sources"]:
        parts.append("from " + ", ".join(rights["sources"]))
    if rights["admin"]:
        parts.append(f"admin of its {rights['manages']}")
    return "; ".join(parts) or "everything"


def limits_of(rights: Json) -> str:
    """Limits in words."""
    return ", ".join(f"{name}={value:g}" for name, value in rights["limits"].items()) or "none"


def listed(names: list[str] | None, otherwise: str = "all") -> Text:
    """Names in a row."""
    return Text(otherwise if names is None else ", ".join(names) or "none")


def moment(seconds: int | None) -> str:
    """A time in UTC."""
    if seconds is None:
        return "never"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
