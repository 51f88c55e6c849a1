"""Which models a key may name. One that it may not name does not exist for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.control.rights import Rights
from gateway.errors import ModelNotFound


def permitted_name(
    rights: Rights, name: str | None, served: Iterable[tuple[Sequence[str], bool]]
) -> str | None:
    """The model to answer a request for ``name``; None for the server's own choice.

    Args:
        served: of each model its names, and whether it does what is asked.

    Raises ModelNotFound in the same words for a model that the key may not name as for one that
    is not there.
    """
    if rights.models is None:
        return name
    offered = []
    for names, does in served:
        own = [one for one in names if rights.allows_model(one)]
        if name is not None and name in own:
            return name
        if own:
            offered.append((own[0], does))
    if name is None and offered:
        return next((first for first, does in offered if does), offered[0][0])
    shown = ", ".join(f"'{first}'" for first, _ in offered)
    raise ModelNotFound(
        (f"The model '{name}' does not exist. " if name is not None else "")
        + f"This API key may use {shown or 'no model of this server'}.",
        param="model",
    )
