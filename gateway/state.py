"""What request handlers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.config.live import Live
from gateway.config.snapshot import snapshot_of
from gateway.control.admission.guard import Admission
from gateway.control.admission.policy import policy_of
from gateway.control.auth import Keyring
from gateway.control.gate import Gate, Guard
from gateway.control.identity.manage import KeyAdmin
from gateway.control.identity.store import KeyStore
from gateway.control.identity.watch import KeyWatch
from gateway.control.ledger.build import new_ledger
from gateway.control.ledger.ledger import Ledger
from gateway.control.ledger.metrics import cache_metrics, ledger_metrics
from gateway.control.limits.build import new_limiter
from gateway.control.limits.limiter import Limiter
from gateway.control.prices import PriceTable
from gateway.control.response_cache.cache import AnswerCache, new_cache
from gateway.lifecycle import Lifecycle
from gateway.media.build import new_loader
from gateway.media.loader import ImageLoader
from gateway.settings import Settings
from gateway.telemetry.tracing import new_tracing

if TYPE_CHECKING:
    from gateway.hooks.run import Hooks
    from gateway.http.exchange import Exchange
    from gateway.telemetry.tracing_otel import Tracing


@dataclass(frozen=True, slots=True)
class GatewayState:
    """Everything that lives as long as the application.

    Attributes:
        live: the configuration in force.
        keys: makes and changes stored keys; blocks on the disk.
        key_watch: keeps the keyring true to the stored keys.
        ledger: counts every request; writes once it has been started.
        answers: whole answers, for callers who want them again.
        media: loads the images of requests.
        limiter: what callers and models may use; the first guard of the gate.
        tracing: tells a collector of requests; None where that is not wanted.
        hooks: code of others that sees requests and answers; None where there is none.
    """

    live: Live
    keyring: Keyring
    lifecycle: Lifecycle
    keys: KeyAdmin
    key_watch: KeyWatch
    ledger: Ledger
    answers: AnswerCache
    admission: Admission
    limiter: Limiter
    media: ImageLoader
    gate: Gate = field(default_factory=Gate)
    tracing: Tracing | None = None
    hooks: Hooks | None = None

    @property
    def settings(self) -> Settings:
        """In force at this moment."""
        return self.live.current.settings

    def settings_of(self, exchange: Exchange) -> Settings:
        """What a request goes by from its beginning to its end."""
        return exchange.settings or self.live.current.settings

    @property
    def prices(self) -> PriceTable:
        """In force at this moment."""
        return self.live.current.prices


def new_state(settings: Settings, sources: Mapping[str, str] | None = None) -> GatewayState:
    """The state of a server that has not loaded its engine yet.

    ``sources`` tells where each setting comes from. Raises ConfigError and PricesError.
    """
    live = Live(snapshot_of(settings, sources or {}))
    keyring = Keyring(
        (key.get_secret_value() for key in settings.api_keys),
        (key.get_secret_value() for key in settings.admin_keys),
        guests=settings.vertex_auth == "iam",
    )
    store = KeyStore(settings.data_dir)
    watch = KeyWatch(store, keyring.publish)
    watch.look()
    prices = live.current.prices
    lifecycle = Lifecycle()
    lifecycle.metrics.sources.append(live.collect)
    limiter = new_limiter(settings, prices, lifecycle)
    admission = Admission(policy_of(settings))
    lifecycle.metrics.sources.append(admission.stats.collect)
    media = new_loader(settings)
    lifecycle.closers.append(media.close)
    ledger = new_ledger(settings, settings.data_dir, prices)
    answers = new_cache(settings)
    hooks = None
    if settings.hooks:
        from gateway.hooks.run import new_hooks

        hooks = new_hooks(settings)
    if hooks is not None:
        lifecycle.metrics.sources.append(hooks.collect)
        lifecycle.closers.append(hooks.close)
    lifecycle.metrics.sources.append(lambda: ledger_metrics(ledger))
    lifecycle.metrics.sources.append(lambda: cache_metrics(answers))
    guards: tuple[Guard, ...] = (limiter, admission)
    tracing = new_tracing(settings)
    if tracing is not None:
        guards = (tracing.before, *guards, tracing.after)
        lifecycle.metrics.sources.append(tracing.collect)
    return GatewayState(
        live=live,
        media=media,
        ledger=ledger,
        answers=answers,
        keys=KeyAdmin(store),
        key_watch=watch,
        keyring=keyring,
        lifecycle=lifecycle,
        admission=admission,
        limiter=limiter,
        gate=Gate(guards),
        tracing=tracing,
        hooks=hooks,
    )
