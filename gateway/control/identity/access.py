"""Which right each route needs: one table, and everything that is not in it is refused.

The table is asked with the route that the framework has matched, never with the text of a URL
(CVE-2026-48710), so the two cannot disagree about what a request is.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.control.identity.parameters import ENDPOINTS
from gateway.control.rights import Principal
from gateway.errors import NotPermitted

Group = str
# Groups beside those of ENDPOINTS: for anybody; for every key; for admins of any scope, where the
# route itself keeps to what they manage; for admins of the whole server.
OPEN = "open"
ANY_KEY = "any"
ADMIN = "admin"
SERVER = "server"
GROUPS = frozenset({*ENDPOINTS, OPEN, ANY_KEY, ADMIN, SERVER})

ADMIN_FIX = (
    "This server has no keys, and the admin API needs an admin key. Make one with "
    "'llm-gateway keys create --admin server', or set ADMIN_KEYS."
)

ROUTES: Mapping[tuple[str, str], Group] = {
    # Probes of load balancers, and pages for browsers, which hold nothing.
    ("/health", "GET"): OPEN,
    ("/health", "HEAD"): OPEN,
    ("/health/live", "GET"): OPEN,
    ("/health/live", "HEAD"): OPEN,
    ("/health/startup", "GET"): OPEN,
    ("/health/startup", "HEAD"): OPEN,
    ("/health/ready", "GET"): OPEN,
    ("/health/ready", "HEAD"): OPEN,
    ("/openapi.json", "GET"): ANY_KEY,
    ("/openapi.json", "HEAD"): ANY_KEY,
    ("/version", "GET"): ANY_KEY,
    ("/metrics", "GET"): "metrics",
    ("/v1/models", "GET"): "models",
    ("/v1/models/{model_id:path}", "GET"): "models",
    ("/v1/chat/completions", "POST"): "chat",
    ("/v1/completions", "POST"): "completions",
    ("/v1/embeddings", "POST"): "embeddings",
    ("/v1/messages", "POST"): "messages",
    ("/v1/messages/count_tokens", "POST"): "messages",
    ("/tokenize", "POST"): "tokens",
    ("/detokenize", "POST"): "tokens",
    ("/predict", "POST"): "predict",
    ("/v1/responses", "POST"): "responses",
    ("/v1/responses/{response_id}", "GET"): "responses",
    ("/v1/responses/{response_id}", "DELETE"): "responses",
    ("/v1/responses/{response_id}/cancel", "POST"): "responses",
    ("/v1/responses/{response_id}/input_items", "GET"): "responses",
    ("/v1/files", "GET"): "files",
    ("/v1/files", "POST"): "files",
    ("/v1/files/{file_id}", "GET"): "files",
    ("/v1/files/{file_id}", "DELETE"): "files",
    ("/v1/files/{file_id}/content", "GET"): "files",
    ("/v1/batches", "GET"): "batches",
    ("/v1/batches", "POST"): "batches",
    ("/v1/batches/{batch_id}", "GET"): "batches",
    ("/v1/batches/{batch_id}/cancel", "POST"): "batches",
    ("/admin/keys", "GET"): ADMIN,
    ("/admin/keys", "POST"): ADMIN,
    ("/admin/keys/{key_id}", "GET"): ADMIN,
    ("/admin/keys/{key_id}", "PATCH"): ADMIN,
    ("/admin/keys/{key_id}/rotate", "POST"): ADMIN,
    ("/admin/keys/{key_id}/revoke", "POST"): ADMIN,
    ("/admin/audit", "GET"): ADMIN,
    ("/admin/usage", "GET"): ADMIN,
    ("/admin/config", "GET"): SERVER,
    ("/admin/config/pending", "GET"): SERVER,
    ("/admin/config/reload", "POST"): SERVER,
}


def group_of(route: str, method: str) -> Group | None:
    """The group of a route of the application; None for one that is in no table."""
    return ROUTES.get((route, method))


def permits(principal: Principal, group: Group | None) -> bool:
    """Whether the caller may use routes of this group."""
    try:
        authorize(principal, group)
    except NotPermitted:
        return False
    return True


def authorize(principal: Principal, group: Group | None, *, keyless: bool = False) -> None:
    """Raise NotPermitted unless the caller may use routes of this group.

    Args:
        keyless: the server has no keys, so that the caller could have none.
    """
    rights = principal.rights
    if group is None:
        raise NotPermitted("No key may use this route.", code="endpoint_not_allowed")
    if group in (OPEN, ANY_KEY):
        return
    if group in (ADMIN, SERVER):
        if not rights.admin:
            fix = ADMIN_FIX if keyless else "This needs an admin key."
            raise NotPermitted(fix, code="admin_key_required")
        if group == SERVER and rights.manages != "server":
            raise NotPermitted(
                "This needs an admin key of the whole server.", code="admin_key_required"
            )
    elif rights.endpoints is not None and group not in rights.endpoints:
        raise NotPermitted(
            f"This API key may not use '{group}'; ask whoever made it for the right.",
            code="endpoint_not_allowed",
        )
