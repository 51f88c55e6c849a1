"""GET /admin/usage: sums from the ledger, for whoever manages keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from gateway.api.health import exchange_of, gateway_of
from gateway.api.openapi_operations import COUNT, TEXT, array, json_answer, record
from gateway.control.ledger.report import (
    GROUPS,
    MONEY,
    SUMS,
    QueryError,
    as_csv,
    as_json,
    read_query,
)
from gateway.control.rights import Principal
from gateway.errors import InvalidRequest, NotPermitted

router = APIRouter(tags=["admin"])

LARGEST_NAME = 512
Name = Annotated[str | None, Query(max_length=LARGEST_NAME)]
Day = Annotated[str | None, Query(max_length=10)]

ROW = record(
    {
        **dict.fromkeys(("day", "key", "organisation", "project", "model", "route"), TEXT),
        **dict.fromkeys(SUMS, COUNT),
        MONEY: {"type": "number", "minimum": 0},
    },
    *("day", "key", "organisation", "project", "model", "route"),
)
USAGE = record(
    {
        "object": {"const": "usage"},
        "from": TEXT,
        "to": TEXT,
        "by": array({"enum": list(GROUPS)}),
        "truncated": {"type": "boolean"},
        "data": array(ROW),
    }
)
SUMS_ANSWER = json_answer("The sums.", USAGE)
SUMS_ANSWER["content"]["text/csv"] = {"schema": TEXT}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: SUMS_ANSWER,
    409: {"description": "This server keeps no record of usage."},
}


@router.get(
    "/admin/usage",
    summary="Usage by day, key, tenant, model, route",
    operation_id="get_usage",
    response_class=Response,
    responses=ANSWERS,
)
async def get_usage(
    request: Request,
    by: Annotated[
        str, Query(max_length=128, description=f"Comma-separated: {', '.join(GROUPS)}.")
    ] = "day",
    first: Annotated[Day, Query(alias="from", description="First day, YYYY-MM-DD in UTC.")] = None,
    last: Annotated[Day, Query(alias="to", description="Last day, included.")] = None,
    key: Name = None,
    organisation: Name = None,
    project: Name = None,
    model: Name = None,
    route: Name = None,
    shape: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
) -> Response:
    """Requests by outcome, tokens and cost. An admin of one tenant sees that tenant only.

    Without ``from`` the last 30 days; numbers are about a second old.
    """
    only = {
        "key": key,
        "model": model,
        "route": route,
        **scoped(exchange_of(request).principal, organisation, project),
    }
    try:
        query = read_query(by, first, last, only)
    except QueryError as error:
        raise InvalidRequest(f"Invalid '{error.field}': {error}.", param=error.field) from None
    rows = await gateway_of(request).ledger.report(query)
    if shape == "csv":
        return Response(as_csv(query, rows), media_type="text/csv; charset=utf-8; header=present")
    return Response(orjson.dumps(as_json(query, rows)), media_type="application/json")


def scoped(
    principal: Principal, organisation: str | None, project: str | None
) -> dict[str, str | None]:
    """The tenants to report on. Raises NotPermitted for those that the caller does not manage."""
    rights, own = principal.rights, principal.tenant
    if not rights.admin:
        raise NotPermitted("This needs an admin key.", code="admin_key_required")
    if rights.manages != "server":
        if organisation not in (None, own.organisation):
            raise NotPermitted("This key manages one organisation only.", code="rights_exceeded")
        organisation = own.organisation
    if rights.manages == "project":
        if project not in (None, own.project):
            raise NotPermitted("This key manages one project only.", code="rights_exceeded")
        project = own.project
    return {"organisation": organisation, "project": project}
