"""/v1/files: upload, list, describe, download, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api import openapi_batches as schemas
from gateway.api.health import exchange_of, gateway_of
from gateway.batch.file_rows import StoredFile
from gateway.batch.files import (
    BATCH_LIFETIME_S,
    HOUR_S,
    MOST_FILES,
    UPLOAD_PURPOSES,
    FileStore,
)
from gateway.batch.service import Batches
from gateway.errors import (
    BodyTimeout,
    BodyTooLarge,
    ClientGone,
    ServerDraining,
    answer,
)
from gateway.http.exchange import Exchange
from gateway.http.multipart import read_form
from gateway.http.watch import ClientWatch
from gateway.protocol.values import Integer, OneOf, missing

router = APIRouter(tags=["files"])

PURPOSE = OneOf(UPLOAD_PURPOSES)
ANCHOR = OneOf(("created_at",))
LIFETIME = Integer(HOUR_S, BATCH_LIFETIME_S)
# The form around the file.
FORM_BYTES = 64 * 1024
CHUNK_BYTES = 256 * 1024


@router.post(
    "/v1/files",
    summary="Upload a file",
    operation_id="create_file",
    responses=schemas.responses("File", 400, 408, 413, 415),
    openapi_extra=schemas.UPLOAD,
)
async def create_file(request: Request) -> Response:
    """A form with ``file``, ``purpose`` and, if it is to go away, ``expires_after``."""
    exchange = exchange_of(request)
    refuse_while_draining(request)
    try:
        return shown(await take_upload(exchange, request))
    except (BodyTooLarge, BodyTimeout) as error:
        return Refusal(exchange, error)
    except ClientGone:
        exchange.outcome = "cancelled"
        return Response(status_code=400)


async def take_upload(exchange: Exchange, request: Request) -> dict[str, Any]:
    """Write the upload to disk as it arrives, and make it a file once it is complete."""
    settings = gateway_of(request).settings
    files = files_of(request)
    draft = await files.draft(exchange.principal.owner)
    try:
        form = await read_form(
            exchange,
            "file",
            draft.write,
            most_bytes=settings.files_max_bytes + FORM_BYTES,
            timeout_s=settings.body_timeout_s,
        )
        if form.filename is None:
            missing("file")
        if "purpose" not in form.fields:
            missing("purpose")
        purpose = PURPOSE.read(form.fields["purpose"], "purpose")
        lifetime_s = read_lifetime(form.fields, purpose)
        stored = await files.add(draft, purpose, form.filename, lifetime_s)
        return stored.card()
    finally:
        await asyncio.shield(asyncio.to_thread(draft.close))


def read_lifetime(fields: Mapping[str, str], purpose: str) -> int | None:
    """Seconds until the file expires, or None. Raises InvalidRequest."""
    anchor = fields.get("expires_after[anchor]")
    seconds = fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return BATCH_LIFETIME_S if purpose == "batch" else None
    if anchor is None:
        missing("expires_after.anchor")
    if seconds is None:
        missing("expires_after.seconds")
    ANCHOR.read(anchor, "expires_after.anchor")
    number = int(seconds) if seconds.isascii() and seconds.isdigit() else seconds
    return LIFETIME.read(number, "expires_after.seconds")


@router.get(
    "/v1/files",
    summary="List files",
    operation_id="list_files",
    responses=schemas.responses("FileList", 400),
)
async def list_files(
    request: Request,
    after: Annotated[str | None, Query(max_length=128, description="Id to go on behind.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_FILES)] = MOST_FILES,
    order: Annotated[Literal["asc", "desc"], Query(description="By time of creation.")] = "desc",
    purpose: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """The caller's own files."""
    owner = exchange_of(request).principal.owner
    found, more = await files_of(request).page(
        owner, after=after, limit=limit, order=order, purpose=purpose
    )
    return shown(page([stored.card() for stored in found], more))


@router.get(
    "/v1/files/{file_id}",
    summary="Describe a file",
    operation_id="retrieve_file",
    responses=schemas.responses("File", 404),
)
async def retrieve_file(request: Request, file_id: str) -> Response:
    """One of the caller's files."""
    stored = await files_of(request).get(exchange_of(request).principal.owner, file_id)
    return shown(stored.card())


@router.get(
    "/v1/files/{file_id}/content",
    summary="Download a file",
    operation_id="download_file",
    responses=schemas.download(404),
)
async def download_file(request: Request, file_id: str) -> Response:
    """The bytes that were uploaded or produced."""
    exchange = exchange_of(request)
    stored, stream = await files_of(request).open(exchange.principal.owner, file_id)
    return Download(exchange, stored, stream)


@router.delete(
    "/v1/files/{file_id}",
    summary="Delete a file",
    operation_id="delete_file",
    responses=schemas.responses("FileDeleted", 404),
)
async def delete_file(request: Request, file_id: str) -> Response:
    """Batches that have been created from it go on."""
    await files_of(request).delete(exchange_of(request).principal.owner, file_id)
    return shown({"id": file_id, "object": "file", "deleted": True})


class Refusal(Response):
    """An error while the client may still be sending."""

    def __init__(self, exchange: Exchange, error: Exception) -> None:
        super().__init__()
        self._exchange = exchange
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Exchange.respond_error."""
        exchange = self._exchange
        await exchange.respond_error(answer(self._error, exchange.request_id))


class Download(Response):
    """A file's content, read in pieces as fast as the client takes them."""

    def __init__(self, exchange: Exchange, stored: StoredFile, stream: BinaryIO) -> None:
        super().__init__()
        self._exchange = exchange
        self._stored = stored
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all, or stop when the client leaves."""
        exchange, stored = self._exchange, self._stored
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % stored.bytes),
            (b"content-disposition", disposition(stored.filename)),
            (b"x-content-type-options", b"nosniff"),
        ]
        try:
            async with ClientWatch(exchange):
                await exchange.start(200, headers)
                while data := await asyncio.to_thread(self._stream.read, CHUNK_BYTES):
                    await exchange.write(data)
                await exchange.end()
        except ClientGone:
            exchange.outcome = "cancelled"
        finally:
            self._stream.close()


def disposition(filename: str) -> bytes:
    """Content-Disposition as RFC 6266 has it; nothing of the name is taken literally."""
    return b"attachment; filename*=UTF-8''" + quote(filename, safe="").encode()


def page(cards: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    """A page of a list, as OpenAI's SDK follows it."""
    return {
        "object": "list",
        "data": cards,
        "first_id": cards[0]["id"] if cards else None,
        "last_id": cards[-1]["id"] if cards else None,
        "has_more": more,
    }


def shown(document: dict[str, Any]) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(document), media_type="application/json")


def batches_of(request: Request) -> Batches:
    """Files and batches."""
    batches: Batches = request.app.state.batches
    return batches


def files_of(request: Request) -> FileStore:
    """The files."""
    return batches_of(request).files


def refuse_while_draining(request: Request) -> None:
    """Raise ServerDraining when no new work is taken."""
    if gateway_of(request).lifecycle.draining:
        raise ServerDraining("The server is shutting down. Please retry on another one.")
