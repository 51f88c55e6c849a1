"""The cache of answers, for models whose targets are all on other servers."""

from __future__ import annotations

from gateway.control.pool import Pool
from gateway.control.response_cache.cache import AnswerCache
from gateway.control.response_cache.slot import Slot, base_of, is_repeatable, note_miss, replay
from gateway.control.response_cache.wish import read_wish
from gateway.http.exchange import Exchange
from gateway.relay.outgoing import Incoming


class RelayedSlot:
    """Where the answer of one model to one request is kept.

    Servers do not say which version of a model they run: what they are called, where they are
    and what they call the model stands in for it.
    """

    def __init__(self, slot: Slot, pool: Pool) -> None:
        self._slot = slot
        self._model = pool.names[0]
        self._made_by = repr([(r.name, r.kind, r.model, r.discovery) for r in pool.spec.remotes])
        self.remember = slot.remember

    async def answer(self, exchange: Exchange, *, stream: bool) -> bool:
        """Send the stored answer, if there is one that will do; whether there was."""
        found = self._slot.find(self._model, self._made_by)
        if found is None:
            note_miss(exchange)
            return False
        await replay(exchange, found, stream=stream)
        return True

    def keep(self, body: bytes | None = None) -> None:
        """Keep a complete answer; without ``body``, what was remembered of a stream."""
        whole = self._slot.remembered if body is None else body
        if whole is not None:
            self._slot.keep_as(self._model, self._made_by, whole)


async def relayed_slot(
    cache: AnswerCache, exchange: Exchange, incoming: Incoming, asked: Pool, pool: Pool
) -> RelayedSlot | None:
    """The place of this request, or None where the cache is not to be used. Raises
    InvalidRequest."""
    if incoming.api not in ("chat", "completions") or pool.replicas:
        return None
    wish = read_wish(exchange.headers, cache.policy)
    if wish is None:
        return None
    principal, document = exchange.principal, incoming.document
    covered = cache.policy.covers((*asked.names, *pool.names), principal.id)
    if not (wish.asked or (covered and is_repeatable(document))):
        return None
    base = await base_of(principal, exchange.path, incoming.body)
    return RelayedSlot(Slot(cache, base, wish), pool)
