"""Stored responses: read, follow, delete, cancel, list the input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from gateway.api.responses_background import (
    BackgroundRuns,
    LiveResponse,
    find_response,
    stored_events,
)
from gateway.api.responses_service import ResponsesService, not_found
from gateway.errors import InvalidRequest
from gateway.http.exchange import Exchange
from gateway.protocol.sse import PING, SSE_HEADERS
from gateway.store.responses import Record

MOST_ITEMS = 100
DEFAULT_ITEMS = 20
LARGEST_NUMBER = 2**53

Json = dict[str, Any]


def stored_routes(service: ResponsesService, runs: BackgroundRuns) -> APIRouter:
    """The routes below ``/v1/responses/{response_id}``; another key's response is a 404."""
    router = APIRouter(include_in_schema=False)  # described by openapi_responses

    @router.get("/v1/responses/{response_id}")
    async def get_response(
        request: Request,
        response_id: str,
        stream: bool = False,
        starting_after: int = Query(-1, ge=-1, le=LARGEST_NUMBER),
    ) -> Response:
        """The response; with ``stream`` the events of a background stream after a number."""
        record, live = await find_response(service, runs, tenant_of(request), response_id)
        if not stream:
            return as_json(record.body)
        ping_s = service.state.settings.sse_ping_s
        return event_stream(record, live, starting_after, ping_s)

    @router.delete("/v1/responses/{response_id}")
    async def delete_response(request: Request, response_id: str) -> Response:
        """Ends it first when it is being worked on."""
        tenant = tenant_of(request)
        live = runs.find(tenant, response_id)
        if live is not None:
            await runs.cancel(live)
            runs.forget(live)
        if not await service.store.delete(tenant, response_id) and live is None:
            raise not_found(response_id)
        return as_json({"id": response_id, "object": "response", "deleted": True})

    @router.post("/v1/responses/{response_id}/cancel")
    async def cancel_response(request: Request, response_id: str) -> Response:
        """The response as it was left; one that has ended stays as it is."""
        tenant = tenant_of(request)
        record, live = await find_response(service, runs, tenant, response_id)
        if not record.body["background"]:
            raise InvalidRequest("Only responses with 'background' true can be cancelled.")
        if live is not None:
            await runs.cancel(live)
            return as_json(live.answer.body)
        if record.running:  # by another gateway with the same DATA_DIR
            record = Record({**record.body, "status": "cancelled"}, record.input)
            await service.store.finish(tenant, record)
        return as_json(record.body)

    @router.get("/v1/responses/{response_id}/input_items")
    async def list_input_items(
        request: Request,
        response_id: str,
        after: str | None = Query(None, max_length=128),
        limit: int = Query(DEFAULT_ITEMS, ge=1, le=MOST_ITEMS),
        order: Literal["asc", "desc"] = "desc",
    ) -> Response:
        """The items of this response's own request, the last first unless asked otherwise."""
        record, _ = await find_response(service, runs, tenant_of(request), response_id)
        return as_json(page(record.input, after, limit, newest_first=order == "desc"))

    return router


def tenant_of(request: Request) -> str:
    """Whose responses may be seen."""
    exchange: Exchange = request.scope["exchange"]
    return exchange.principal.owner


def as_json(body: Json) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(body), media_type="application/json")


def page(items: list[Json], after: str | None, limit: int, *, newest_first: bool) -> Json:
    """Up to ``limit`` items behind the one called ``after``. Raises InvalidRequest."""
    ordered = items[::-1] if newest_first else items
    if after is not None:
        places = [index for index, item in enumerate(ordered) if item["id"] == after]
        if not places:
            raise InvalidRequest("Invalid 'after': no input item has this id.", param="after")
        ordered = ordered[places[0] + 1 :]
    shown = ordered[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(ordered) > limit,
    }


def event_stream(
    record: Record, live: LiveResponse | None, after: int, ping_s: float
) -> StreamingResponse:
    """The events of a background response, live or stored. Raises InvalidRequest."""

    async def replay(events: bytes) -> AsyncIterator[bytes]:
        yield await asyncio.to_thread(stored_events, events, after)

    if live is not None and live.work.request.stream:
        source = with_pings(live, after, ping_s)
    elif record.events is not None:
        source = replay(record.events)
    else:
        raise InvalidRequest(
            "Only background responses that were made with 'stream' true can be streamed.",
            param="stream",
        )
    headers = {name.decode(): value.decode() for name, value in SSE_HEADERS}
    return StreamingResponse(source, headers=headers)


async def with_pings(live: LiveResponse, after: int, ping_s: float) -> AsyncIterator[bytes]:
    """The events of a live response, with a sign of life while there are none."""
    async for data in live.follow(after, ping_s or None):
        yield data or PING
