"""/v1/batches: create, list, describe, cancel."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import Response

from gateway.api import openapi_batches as schemas
from gateway.api.files import (
    batches_of,
    page,
    refuse_while_draining,
    shown,
)
from gateway.api.files import router as files_router
from gateway.api.health import exchange_of, gateway_of
from gateway.batch.batch_rows import NewBatch, new_batch_id
from gateway.batch.files import BATCH_LIFETIME_S, DAY_S
from gateway.batch.service import Batches
from gateway.control.identity.access import authorize, group_of
from gateway.errors import ClientGone, InvalidRequest
from gateway.http.body import read_json_body
from gateway.http.edge import HotHandler
from gateway.protocol.batch_parameters import BATCH
from gateway.protocol.json_body import parse_object
from gateway.protocol.parameters import read_fields
from gateway.state import GatewayState

router = APIRouter(tags=["batches"])

# Without a file of its own a batch's request is small.
MOST_BODY_BYTES = 256 * 1024


def mount_batches(state: GatewayState, hot: dict[str, HotHandler], cold: FastAPI) -> None:
    """Add files and batches to a server that is being built; ``hot`` is complete."""
    cold.state.batches = Batches(state, hot)
    cold.include_router(files_router)
    cold.include_router(router)


@router.post(
    "/v1/batches",
    summary="Create a batch",
    operation_id="create_batch",
    responses=schemas.responses("Batch", 400, 408, 413, 415),
    openapi_extra=schemas.CREATE_BATCH,
)
async def create_batch(request: Request) -> Response:
    """Have the requests of an uploaded file answered in the background."""
    exchange = exchange_of(request)
    refuse_while_draining(request)
    settings = gateway_of(request).settings
    most_bytes = min(MOST_BODY_BYTES, settings.max_body_bytes)
    try:
        body = await read_json_body(exchange, most_bytes, settings.body_timeout_s)
    except ClientGone:
        exchange.outcome = "cancelled"
        return Response(status_code=400)
    fields = read_fields(parse_object(body), BATCH, strict=settings.strict_parameters)
    endpoint = fields["endpoint"]
    if endpoint not in batches_of(request).endpoints:
        raise InvalidRequest("Invalid 'endpoint': it is not served here.", param="endpoint")
    authorize(exchange.principal, group_of(endpoint, "POST"))
    lifetime = fields.get("output_expires_after", {}).get("seconds", BATCH_LIFETIME_S)
    asked = NewBatch(
        batch_id=new_batch_id(),
        owner=exchange.principal.owner,
        key=exchange.principal.id,
        endpoint=endpoint,
        input_file_id=fields["input_file_id"],
        completion_window=fields["completion_window"],
        window_s=DAY_S,
        metadata=fields.get("metadata"),
        output_lifetime_s=lifetime,
    )
    batch = await batches_of(request).create(asked)
    return shown(batch.card())


@router.get(
    "/v1/batches",
    summary="List batches",
    operation_id="list_batches",
    responses=schemas.responses("BatchList", 400),
)
async def list_batches(
    request: Request,
    after: Annotated[str | None, Query(max_length=128, description="Id to go on behind.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """The caller's own batches, newest first."""
    owner = exchange_of(request).principal.owner
    found, more = await batches_of(request).batches.page(owner, after, limit)
    return shown(page([batch.card() for batch in found], more))


@router.get(
    "/v1/batches/{batch_id}",
    summary="Describe a batch",
    operation_id="retrieve_batch",
    responses=schemas.responses("Batch", 404),
)
async def retrieve_batch(request: Request, batch_id: str) -> Response:
    """One of the caller's batches; its counts are true at every moment."""
    owner = exchange_of(request).principal.owner
    batch = await batches_of(request).batches.get(owner, batch_id)
    return shown(batch.card())


@router.post(
    "/v1/batches/{batch_id}/cancel",
    summary="Cancel a batch",
    operation_id="cancel_batch",
    responses=schemas.responses("Batch", 404, 409),
)
async def cancel_batch(request: Request, batch_id: str) -> Response:
    """Results that exist are kept; the rest is not run."""
    owner = exchange_of(request).principal.owner
    batch = await batches_of(request).cancel(owner, batch_id)
    return shown(batch.card())
