"""What the routes of the Responses API share: the store, the context of a request, live runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from engine.base import RequestRejected
from gateway.chat.caller import Caller
from gateway.chat.turn import ChatTurn, chat_turn
from gateway.control.fleet import Fleet
from gateway.errors import InvalidRequest, ObjectNotFound, StorageUnavailable
from gateway.protocol.chat_request import ChatRequest
from gateway.protocol.response_chat import Conversation
from gateway.protocol.response_items import Item, new_id
from gateway.protocol.response_request import (
    ResponseRequest,
    chat_request_of,
    conversation_of,
    response_head,
)
from gateway.state import GatewayState
from gateway.store.responses import Bounds, Record, ResponseStore

log = logging.getLogger("gateway.responses")

MAX_LINKS = 512
MAX_CHAIN_BYTES = 32 * 1024 * 1024
# How long an answer waits for its own storing; the next request may go on from it.
STORE_WAIT_S = 1.0
# A conversation larger than this is put together off the event loop.
INLINE_ITEMS = 64

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """A request with everything that answering it needs.

    Attributes:
        head: the response object before the answer.
        input: the items of this request, references replaced.
        conversation: the whole context as chat messages.
    """

    request: ResponseRequest
    head: Json
    input: list[Item]
    conversation: Conversation
    chat: ChatRequest


class ResponsesService:
    """One per server. Owned by its event loop."""

    def __init__(self, state: GatewayState) -> None:
        settings = state.settings
        bounds = Bounds(
            settings.responses_max_stored,
            settings.responses_max_bytes,
            settings.responses_max_total_bytes,
            settings.responses_max_age_s,
        )
        self.state = state
        self.store = ResponseStore(settings.data_dir, bounds)
        self._writes: set[asyncio.Task[bool]] = set()

    async def prepare(self, tenant: str, request: ResponseRequest) -> Work:
        """Find the context and make a chat request of it.

        Raises InvalidRequest, or StorageUnavailable when the context cannot be read.
        """
        earlier = await self._earlier(tenant, request.previous) if request.previous else []
        items = await self._resolve(tenant, request)
        head = response_head(request, new_id("resp"), int(time.time()))

        def build() -> Work:
            conversation = conversation_of(request, earlier, items)
            chat = chat_request_of(request, conversation)
            return Work(request, head, items, conversation, chat)

        if len(earlier) + len(items) <= INLINE_ITEMS:
            return build()
        return await asyncio.to_thread(build)

    async def fit(self, work: Work, fleet: Fleet, caller: Caller) -> ChatRequest:
        """The chat request, its oldest messages dropped until it fits, where that is asked for.

        Raises what building a prompt raises, in the names of this API.
        """
        conversation, chat = work.conversation, work.chat
        while True:
            try:
                await fleet.route(chat.model, caller.principal, ask=caller.ask).prompts.build(
                    chat, self.state.media
                )
            except InvalidRequest as error:
                shorter = None
                if work.request.truncates and error.code == "context_length_exceeded":
                    shorter = conversation.without_oldest()
                if shorter is None:
                    raise conversation.in_own_words(error) from None
                conversation = shorter
                chat = chat_request_of(work.request, conversation)
            else:
                return chat

    async def turn(
        self, stack: AsyncExitStack, fleet: Fleet, work: Work, caller: Caller
    ) -> ChatTurn:
        """Start generating; errors name the fields of this API."""
        chat = await self.fit(work, fleet, caller) if work.request.truncates else work.chat
        try:
            return await stack.enter_async_context(
                chat_turn(self.state, fleet, chat, caller, id_prefix="resp_")
            )
        except RequestRejected as error:
            told = InvalidRequest(str(error), param=error.param, code=error.code)
            raise work.conversation.in_own_words(told) from None
        except InvalidRequest as error:
            raise work.conversation.in_own_words(error) from None

    async def keep(self, tenant: str, record: Record) -> bool:
        """Store a response; False when it is known not to be kept. Never raises, and gives a
        slow disk a moment only: the answer goes out whatever becomes of it."""
        task = self._write(self._put(tenant, record))
        done, _ = await asyncio.wait({task}, timeout=STORE_WAIT_S)
        return task.result() if done else True

    async def finish(self, tenant: str, record: Record) -> bool:
        """Store the end of a running response; False when its end could not be stored.

        One that was deleted or cancelled in the meantime stays so. Never raises.
        """
        return await asyncio.shield(self._write(self._finish(tenant, record)))

    async def close(self) -> None:
        """Finish what is being stored and close the file."""
        if self._writes:
            await asyncio.wait(self._writes)
        await self.store.close()

    def _write(self, work: Coroutine[Any, Any, bool]) -> asyncio.Task[bool]:
        """Write whatever becomes of the caller."""
        task = asyncio.create_task(work)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return task

    async def _put(self, tenant: str, record: Record) -> bool:
        try:
            kept = await self.store.put(tenant, record)
        except StorageUnavailable:
            kept = False
        if not kept:
            self._note_lost(record)
        return kept

    async def _finish(self, tenant: str, record: Record) -> bool:
        try:
            await self.store.finish(tenant, record)
        except StorageUnavailable:
            self._note_lost(record)
            return False
        return True

    def _note_lost(self, record: Record) -> None:
        self.state.lifecycle.metrics.responses_not_stored += 1
        log.warning("a response was not stored", extra={"fields": {"response": record.id}})

    async def _earlier(self, tenant: str, previous: str) -> list[Item]:
        """The items of everything before this request, oldest first."""
        records = await self.store.chain(tenant, previous, MAX_LINKS, MAX_CHAIN_BYTES)
        if not records:
            raise previous_not_found(previous)
        if records[-1].running:
            raise InvalidRequest(
                f"Previous response with id '{previous}' is not finished yet.",
                param="previous_response_id",
            )
        missing = records[0].body["previous_response_id"]
        too_much = len(records) > MAX_LINKS or (
            missing is not None and await self._has(tenant, missing)
        )
        if too_much:
            raise InvalidRequest(
                "The conversation behind 'previous_response_id' is too long to be put together: "
                f"at most {MAX_LINKS} responses and {MAX_CHAIN_BYTES} bytes. Start a new one.",
                param="previous_response_id",
                code="context_length_exceeded",
            )
        if missing is not None:
            raise previous_not_found(missing)
        return [item for record in records for item in (*record.input, *record.body["output"])]

    async def _has(self, tenant: str, response_id: str) -> bool:
        return await self.store.get(tenant, response_id) is not None

    async def _resolve(self, tenant: str, request: ResponseRequest) -> list[Item]:
        """The input with references replaced by what they refer to."""
        wanted = request.references
        if not wanted:
            return request.input
        found = await self.store.items(tenant, wanted)
        items = []
        for index, item in enumerate(request.input):
            if item["type"] != "item_reference":
                items.append(item)
            elif item["id"] in found:
                items.append(found[item["id"]])
            else:
                raise InvalidRequest(
                    f"Item with id '{item['id']}' not found.",
                    param=f"input[{index}].id",
                    code="item_not_found",
                )
        return items


def previous_not_found(response_id: str) -> InvalidRequest:
    """The error for a conversation that is not stored, or not for this caller."""
    return InvalidRequest(
        f"Previous response with id '{response_id}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


def not_found(response_id: str) -> ObjectNotFound:
    """The error for a response that is not stored, or not for this caller."""
    return ObjectNotFound(f"Response with id '{response_id[:128]}' not found.", param="response_id")
