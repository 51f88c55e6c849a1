"""/admin/keys and /admin/audit: keys are made, shown, changed and ended; every change is noted.

Whoever manages keys of any scope may come here (see control/identity/access.py); what of it the
key may do is decided in the transaction that does it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from gateway.api import admin_schemas as schemas
from gateway.api.health import exchange_of, gateway_of
from gateway.control.identity.audit import Actor
from gateway.control.identity.secrets import NewSecret
from gateway.control.identity.store import KeyStoreUnavailable
from gateway.control.identity.stored_key import StoredKey
from gateway.errors import ClientGone, InvalidRequest
from gateway.http.body import read_json_body
from gateway.http.edge import source_of_request
from gateway.protocol.json_body import parse_object

log = logging.getLogger("gateway.keys")

router = APIRouter(tags=["admin"])

T = TypeVar("T")
Json = dict[str, Any]

MOST_BODY_BYTES = 256 * 1024
MOST_SHOWN = 1000

Id = Annotated[str | None, Query(max_length=128, description="Id to go on behind.")]
Limit = Annotated[int, Query(ge=1, le=MOST_SHOWN)]
Name = Annotated[str | None, Query(max_length=64)]


@router.post(
    "/admin/keys",
    summary="Make a key",
    operation_id="create_key",
    responses=schemas.responses(schemas.NEW_KEY, 400, 408, 413, 415),
    openapi_extra=schemas.CREATE_BODY,
)
async def create_key(request: Request) -> Response:
    """What is left out is as for the key that asks. The answer is the only one with ``key``."""
    document = await read_document(request)
    keys = gateway_of(request).keys
    return shown_once(*await change(request, lambda actor: keys.create(actor, document)))


@router.get(
    "/admin/keys",
    summary="List keys",
    operation_id="list_keys",
    responses=schemas.responses(schemas.list_of(schemas.KEY), 400),
)
async def list_keys(
    request: Request,
    organisation: Name = None,
    project: Name = None,
    after: Id = None,
    limit: Limit = 100,
) -> Response:
    """Keys that the asking one manages, newest first, ended ones included."""
    keys = gateway_of(request).keys
    found, more = await in_store(
        lambda: keys.page(
            actor_of(request),
            organisation=organisation,
            project=project,
            after=after,
            limit=limit,
        )
    )
    return shown(page([key.card() for key in found], more))


@router.get(
    "/admin/keys/{key_id}",
    summary="Show a key",
    operation_id="retrieve_key",
    responses=schemas.responses(schemas.KEY, 404),
)
async def retrieve_key(request: Request, key_id: str) -> Response:
    """Its rights and what has become of it; never its secret."""
    keys = gateway_of(request).keys
    key = await in_store(lambda: keys.get(actor_of(request), key_id))
    return shown(key.card())


@router.patch(
    "/admin/keys/{key_id}",
    summary="Change a key",
    operation_id="update_key",
    responses=schemas.responses(schemas.KEY, *schemas.OF_A_BODY),
    openapi_extra=schemas.UPDATE_BODY,
)
async def update_key(request: Request, key_id: str) -> Response:
    """Name, expiry or rights; a right that is given replaces the one that was."""
    document = await read_document(request)
    keys = gateway_of(request).keys
    return shown((await change(request, lambda who: keys.update(who, key_id, document))).card())


@router.post(
    "/admin/keys/{key_id}/rotate",
    summary="Give a key a new secret",
    operation_id="rotate_key",
    responses=schemas.responses(schemas.NEW_KEY, *schemas.OF_A_BODY),
    openapi_extra=schemas.ROTATE_BODY,
)
async def rotate_key(request: Request, key_id: str) -> Response:
    """The present secret works on for ``grace_s`` seconds, a day unless it is given."""
    document = await read_document(request)
    keys = gateway_of(request).keys
    return shown_once(*await change(request, lambda who: keys.rotate(who, key_id, document)))


@router.post(
    "/admin/keys/{key_id}/revoke",
    summary="End a key",
    operation_id="revoke_key",
    responses=schemas.responses(schemas.KEY, *schemas.OF_A_BODY),
    openapi_extra=schemas.REVOKE_BODY,
)
async def revoke_key(request: Request, key_id: str) -> Response:
    """At once and for good. Answers that are being written are finished."""
    document = await read_document(request)
    keys = gateway_of(request).keys
    return shown((await change(request, lambda who: keys.revoke(who, key_id, document))).card())


@router.get(
    "/admin/audit",
    summary="List changes",
    operation_id="list_audit_entries",
    responses=schemas.responses(schemas.list_of(schemas.ENTRY), 400),
)
async def list_audit_entries(
    request: Request,
    target: Annotated[str | None, Query(max_length=128, description="Id of what changed.")] = None,
    after: Id = None,
    limit: Limit = 100,
) -> Response:
    """Who changed what, before and after, newest first."""
    keys = gateway_of(request).keys
    found, more = await in_store(
        lambda: keys.audit_page(actor_of(request), target=target, after=after, limit=limit)
    )
    return shown(page(found, more))


async def read_document(request: Request) -> Json:
    """The JSON body, where nothing at all stands for an empty object. Raises InvalidRequest."""
    exchange = exchange_of(request)
    settings = gateway_of(request).settings
    declared = exchange.headers.get(b"content-length")
    if declared == b"0" or (declared is None and b"transfer-encoding" not in exchange.headers):
        return {}
    most_bytes = min(MOST_BODY_BYTES, settings.max_body_bytes)
    try:
        body = await read_json_body(exchange, most_bytes, settings.body_timeout_s)
    except ClientGone:
        exchange.outcome = "cancelled"
        raise InvalidRequest("The request ended before its body was complete.") from None
    return parse_object(body)


async def change(request: Request, act: Callable[[Actor], T]) -> T:
    """What ``act`` returns. This server knows of it before the answer is sent, others within a
    second; a client that leaves does not undo it."""
    state = gateway_of(request)
    actor = actor_of(request)

    def work() -> T:
        result = act(actor)
        state.key_watch.look()
        return result

    return await in_store(work)


async def in_store(work: Callable[[], T]) -> T:
    """The result of work that blocks on the disk; the log tells why it was not to be had."""
    try:
        return await asyncio.to_thread(work)
    except KeyStoreUnavailable as error:
        log.error("the store of keys failed", extra={"fields": {"cause": error.cause}})
        raise


def actor_of(request: Request) -> Actor:
    """Who asks, for the audit log."""
    exchange = exchange_of(request)
    source = source_of_request(exchange, gateway_of(request))
    shown_source = None if source is None else str(source)
    return Actor.of(exchange.principal, shown_source, exchange.request_id)


def page(cards: list[Json], more: bool) -> Json:
    """A page of a list."""
    return {
        "object": "list",
        "data": cards,
        "first_id": cards[0]["id"] if cards else None,
        "last_id": cards[-1]["id"] if cards else None,
        "has_more": more,
    }


def shown_once(key: StoredKey, secret: NewSecret) -> Response:
    """A key with its secret."""
    return shown({**key.card(), "key": secret.text})


def shown(document: Json) -> Response:
    """A JSON answer that nobody keeps."""
    headers = {"cache-control": "no-store"}
    return Response(orjson.dumps(document), headers=headers, media_type="application/json")
