"""Copies of requests for a model that is being tried out: nobody waits for them, nobody pays.

A copy passes no gate and is entered nowhere: it costs its caller nothing and takes nobody's
place. Bounded in number and time; beyond that it is simply not made.
"""

from __future__ import annotations

import asyncio
import random

from gateway.control.fleet import Fleet
from gateway.control.pool import Pool
from gateway.relay.answer import ask as ask_server
from gateway.relay.errors import UpstreamFault
from gateway.relay.outgoing import Incoming, outgoing
from gateway.routing.ask import Ask
from gateway.routing.config import Shadow
from gateway.routing.shadows import Shadows
from gateway.routing.upstream import Upstream


def due(asked: Pool, answering: Pool) -> Pool | None:
    """Which of the two has the shadow that gets a copy: the one that answers, if it has any. None
    where neither has, or the lot falls otherwise."""
    owner = answering if answering.spec.shadow is not None else asked
    rule = owner.spec.shadow
    is_drawn = rule is not None and random.random() < rule.share  # noqa: S311 - no secret
    return owner if is_drawn else None


def copy(fleet: Fleet, owner: Pool, incoming: Incoming) -> None:
    """Send a copy of a request on its way to a model's shadow."""
    rule = owner.spec.shadow
    if rule is None:
        return
    shadows = owner.shadows
    to = fleet.named(rule.to)
    found = to.choose(incoming.api, Ask(incoming.api, rule.to), ())
    if found is None or len(shadows.running) >= rule.most or not isinstance(found[0], Upstream):
        shadows.outcomes["skipped"] += 1
        return
    task = asyncio.create_task(_run(found[0], to, incoming, rule, shadows))
    shadows.running.add(task)
    task.add_done_callback(shadows.running.discard)


async def _run(
    upstream: Upstream, to: Pool, incoming: Incoming, rule: Shadow, shadows: Shadows
) -> None:
    outcome = "failed"
    try:
        request = outgoing(incoming, upstream, to.names[0])
        async with asyncio.timeout(rule.timeout_s):
            with upstream.attempt(len(incoming.body)):
                async with ask_server(upstream, request.data) as connection:
                    while await connection.read(rule.timeout_s):
                        pass
        outcome = "completed"
    except (UpstreamFault, TimeoutError):
        return  # the upstream's own counters tell
    finally:
        shadows.outcomes[outcome] += 1
