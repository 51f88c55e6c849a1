"""Builds the ASGI application: the edge, the hot routes, and FastAPI for the rest."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from gateway import __version__
from gateway.api import admin, admin_config, admin_usage, health, models, operations
from gateway.api.batches import mount_batches
from gateway.api.chat import ChatCompletions
from gateway.api.completions import Completions
from gateway.api.docs_page import docs_routes
from gateway.api.embeddings import Embeddings
from gateway.api.messages import CountTokens, Messages
from gateway.api.openapi import describe_hot_routes
from gateway.api.playground import playground_routes
from gateway.api.predict import Predict
from gateway.api.predict_raw import VertexPredict
from gateway.api.responses import mount_responses
from gateway.api.tokens import Detokenize, Tokenize
from gateway.errors import (
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    UnknownUrl,
    answer,
)
from gateway.http.edge import OPEN_PATHS, Edge, HotHandler
from gateway.http.guard import guard_routes
from gateway.state import GatewayState
from gateway.telemetry.logging import REQUEST_ID


def build_app(state: GatewayState) -> Edge:
    """The application that uvicorn runs; with ADMIN_PORT it leaves the operators' routes to
    ``admin_side``."""
    pages = frozenset(route.path for route in page_routes(state))
    hot: dict[str, HotHandler] = {
        "/v1/chat/completions": ChatCompletions(state),
        "/v1/completions": Completions(state),
        "/v1/embeddings": Embeddings(state),
        "/tokenize": Tokenize(state),
        "/detokenize": Detokenize(state),
        "/predict": Predict(state),
        "/v1/messages": Messages(state),
        "/v1/messages/count_tokens": CountTokens(state),
    }
    if (own_route := state.settings.aip_predict_route) is not None:
        chat, text = hot["/v1/chat/completions"], hot["/v1/completions"]
        vertex_predict = VertexPredict(state, hot["/predict"], chat, text)
        # A route that is ours already takes its own bodies: Vertex passes any on.
        if own_route == "/predict" or own_route not in hot:
            hot[own_route] = vertex_predict
    cold = build_cold_app(state)
    mount_responses(state, hot, cold)
    mount_batches(state, hot, cold)
    own_port = state.settings.admin_port is None
    open_paths = paths_without_key(state) | pages
    guard_routes(cold.routes, open_paths, state.keyring)
    serves = everything if own_port else for_callers
    return Edge(state, hot, cold, open_paths, serves)


def admin_side(state: GatewayState, app: Edge) -> Edge:
    """What ADMIN_PORT serves of an application."""
    return Edge(state, {}, app.cold, paths_without_key(state), for_operators)


def paths_without_key(state: GatewayState) -> frozenset[str]:
    """What is not for browsers and needs no key."""
    settings = state.settings
    # What Vertex AI scrapes with has no key.
    by_vertex = settings.aip_http_port is not None and settings.admin_port is None
    if by_vertex or not settings.metrics_need_key:
        return OPEN_PATHS | {"/metrics"}
    return OPEN_PATHS


def everything(_: str) -> bool:
    """One port serves all."""
    return True


def for_callers(path: str) -> bool:
    """What stays on PORT beside ADMIN_PORT."""
    return path != "/metrics" and not path.startswith("/admin/")


def for_operators(path: str) -> bool:
    """What ADMIN_PORT serves."""
    return path in OPEN_PATHS or path == "/version" or not for_callers(path)


def page_routes(state: GatewayState) -> list[Route]:
    """The pages for browsers. They hold nothing and ask for a key, so they need none."""
    return [*playground_routes(), *docs_routes()] if state.settings.playground else []


def build_cold_app(state: GatewayState) -> FastAPI:
    """FastAPI with every route that is not hot, and the documentation of all."""
    app = FastAPI(
        title="llm-gateway",
        version=__version__,
        description="A self-hosted OpenAI-compatible LLM server.",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.gateway = state
    app.router.routes.extend(page_routes(state))
    for module in (models, health, operations, admin, admin_usage, admin_config):
        app.include_router(module.router)
    if state.settings.admin_port is not None:
        for route in app.routes:
            if isinstance(route, Route) and not for_callers(route.path):
                route.include_in_schema = False
    describe_hot_routes(app)
    for kind in (GatewayError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, respond_to_error)
    return app


async def respond_to_error(request: Request, error: Exception) -> Response:
    """The table of errors, for routes behind the framework."""
    if isinstance(error, HTTPException):
        error = translate(request, error)
    elif isinstance(error, RequestValidationError):
        field = str(error.errors()[0]["loc"][-1])[:64]
        error = InvalidRequest(f"Invalid '{field}' in the path or query.", param=field)
    reply = answer(error, REQUEST_ID.get() or "", request.scope["path"])
    headers: dict[str, str] = {name.decode(): value.decode() for name, value in reply.headers}
    return Response(reply.body, reply.status, headers, media_type="application/json")


def translate(request: Request, error: HTTPException) -> GatewayError:
    """The framework's own refusals as ours."""
    method, path = request.scope["method"], request.scope["path"][:256]
    if error.status_code == 404:
        return UnknownUrl(f"Unknown request URL: {method} {path}.")
    if error.status_code == 405:
        allow = allowed_methods(request)
        return MethodNotAllowed(f"Use {allow} for {path}.", allow=allow)
    return InvalidRequest("The request is not valid.")


def allowed_methods(request: Request) -> str:
    """The methods of every route with this path; the framework names those of the first."""
    routes = (route for route in request.app.routes if isinstance(route, Route))
    fitting = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return ", ".join(sorted({method for route in fitting for method in route.methods or ()}))
