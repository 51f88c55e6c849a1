"""Reads the configuration again while serving, and exchanges it whole or not at all.

    read and check ──▶ compare ──▶ prepare what is new ──▶ note in the audit log ──▶ exchange

Only the last step changes anything. It runs between two turns of the event loop, so no request
sees half of it; when one of its parts fails, all of them get the old snapshot back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gateway.config.fleets import NextFleet, next_fleet
from gateway.config.plan import Plan, plan
from gateway.config.retired import Retired
from gateway.config.snapshot import ConfigInvalid, Snapshot
from gateway.control.admission.policy import policy_of
from gateway.control.identity.audit import Actor
from gateway.control.identity.store import KeyStoreUnavailable
from gateway.control.limits.build import warn_of_unknown_models
from gateway.control.limits.table import read_table
from gateway.control.response_cache.wish import Policy
from gateway.errors import GatewayError, ModelLoading, ServerDraining

if TYPE_CHECKING:
    from gateway.state import GatewayState

log = logging.getLogger("gateway.config")

SIGNAL = Actor("signal:SIGHUP")


class Reloader:
    """Of one server process. Owned by the event loop; one reload runs at a time.

    Args:
        read: reads everything again; blocks. Raises ConfigInvalid.
        set_log_level: takes a level of LOG_LEVEL.
    """

    def __init__(
        self,
        state: GatewayState,
        read: Callable[[], Snapshot],
        set_log_level: Callable[[str], None],
    ) -> None:
        self._state = state
        self._read = read
        self._set_log_level = set_log_level
        self._turn = asyncio.Lock()
        self._retired = Retired(state.lifecycle)
        state.lifecycle.closers.append(self._retired.close)

    async def pending(self) -> Plan:
        """What a reload would do. Raises ConfigInvalid."""
        return await asyncio.to_thread(self._plan, self._state.live.current)

    async def reload(self, actor: Actor) -> Plan:
        """Read everything again, and exchange what can be.

        Raises ConfigInvalid, ModelLoading, ServerDraining and, where the change cannot be
        noted, KeyStoreUnavailable; nothing has changed then.
        """
        live = self._state.live
        async with self._turn:
            try:
                done = await self._reload(actor)
            except Exception as error:
                live.note("failed")
                is_ours = isinstance(error, ConfigInvalid | GatewayError)
                cause = str(error) if is_ours else type(error).__name__
                log.error(
                    "the configuration was not reloaded",
                    extra=told(cause, actor),
                    exc_info=None if is_ours else error,
                )
                raise
        live.note("applied" if done.applied else "unchanged")
        fields = {
            "hash": done.snapshot.digest,
            "actor": actor.id,
            "applied": [change.name for change in done.applied],
            "requires_restart": [change.name for change in done.waiting],
        }
        log.warning("the configuration was reloaded", extra={"fields": fields})
        return done

    async def _reload(self, actor: Actor) -> Plan:
        state = self._state
        self._check_serving()
        found = await asyncio.to_thread(self._plan, state.live.current)
        if not found.applied:
            return found
        prepared = next_fleet(state.lifecycle.loaded_fleet(), found.snapshot)
        try:
            await prepared.start()
            await self._audit(actor, found)
            self._check_serving()
            self._exchange(found, prepared)
        except BaseException:
            await prepared.abandon()
            raise
        return found

    def _plan(self, present: Snapshot) -> Plan:
        return plan(present, self._read())

    def _check_serving(self) -> None:
        lifecycle = self._state.lifecycle
        if lifecycle.draining:
            raise ServerDraining("The server is shutting down; the next one reads it anew.")
        if not lifecycle.begun:
            raise ModelLoading("The server is still loading. Reload once it is ready.")

    def _exchange(self, found: Plan, prepared: NextFleet) -> None:
        lifecycle = self._state.lifecycle
        present = lifecycle.fleet
        try:
            self._put_in_force(found.snapshot)
        except BaseException:
            self._put_in_force(found.before)
            raise
        lifecycle.fleet = prepared.fleet
        prepared.weigh()
        if present is not None:
            self._retired.add(present)
        for pool in prepared.fleet.pools:
            lifecycle.metrics.models[pool.names[0]]  # its series exist from now on
        self._state.admission.expect(prepared.fleet.pools)
        warn_of_unknown_models(self._state.limiter)

    def _put_in_force(self, snapshot: Snapshot) -> None:
        state, settings = self._state, snapshot.settings
        state.keyring.replace(
            (key.get_secret_value() for key in settings.api_keys),
            (key.get_secret_value() for key in settings.admin_keys),
        )
        # A new table even where it is equal: its models go by names that may have changed.
        state.limiter.table = read_table(settings.limits)
        state.limiter.use_prices(snapshot.prices)
        state.ledger.use_prices(snapshot.prices)
        state.answers.bound(
            Policy.parse(settings.response_cache),
            settings.response_cache_max_bytes,
            settings.response_cache_max_entries,
            settings.response_cache_max_age_s,
        )
        state.admission.apply(policy_of(settings))
        self._set_log_level(settings.log_level)
        state.live.put(snapshot)

    async def _audit(self, actor: Actor, found: Plan) -> None:
        before: dict[str, Any] = {"hash": found.before.digest}
        after: dict[str, Any] = {"hash": found.snapshot.digest}
        for change in found.applied:
            before[change.name], after[change.name] = change.before, change.after
        keys = self._state.keys
        try:
            await asyncio.to_thread(keys.note, actor, "config.reload", "config", before, after)
        except KeyStoreUnavailable as error:
            if actor is not SIGNAL:
                raise
            # Whoever may send signals may do anything, and a full disk is no reason to stay as
            # things are.
            log.error("the reload is not in the audit log", extra=told(error.cause, actor))


def told(cause: str, actor: Actor) -> dict[str, Any]:
    """Fields of a log line."""
    return {"fields": {"cause": cause, "actor": actor.id}}
