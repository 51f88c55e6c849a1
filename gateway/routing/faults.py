"""What a fault means: for the choice of another target, and for the client."""

from __future__ import annotations

from engine.base import EngineError, EngineOverloaded, RequestRejected
from gateway.control.pool import Pool
from gateway.errors import (
    BodyTooLarge,
    EndpointNotSupported,
    GenerationAborted,
    InvalidRequest,
    ModelLoading,
    UpstreamBroken,
    UpstreamError,
    UpstreamLimited,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.relay.errors import (
    Busy,
    NotUnderstood,
    Refused,
    Rejected,
    Silent,
    UpstreamFault,
)
from gateway.routing.config import API_PATHS, Api, ErrorClass

NOT_IN_PROTOCOL = "context_length_exceeded"


def class_of(fault: Exception) -> ErrorClass | None:
    """The class of error that another model may answer for; None for the caller's own faults."""
    if isinstance(fault, Rejected):
        return "context_too_long" if fault.too_long else None
    if isinstance(fault, InvalidRequest | RequestRejected):
        return "context_too_long" if fault.code == NOT_IN_PROTOCOL else None
    if isinstance(fault, Busy | EngineOverloaded | UpstreamOverloaded | UpstreamLimited):
        return "overloaded"
    if isinstance(fault, UpstreamFault | UpstreamError | ModelLoading | EngineError):
        return "down"
    return None


def elsewhere(fault: Exception) -> bool:
    """Whether another target of the same model may do better."""
    return class_of(fault) in ("overloaded", "down") and not isinstance(fault, GenerationAborted)


def told(fault: Exception, pool: Pool) -> Exception:
    """What the client is told of the last fault."""
    name = pool.names[0]
    if isinstance(fault, Rejected):
        code = NOT_IN_PROTOCOL if fault.too_long else fault.code
        if fault.status == 413:
            return BodyTooLarge(fault.message, param=fault.param, code=code)
        return InvalidRequest(fault.message, param=fault.param, code=code)
    if isinstance(fault, Busy):
        after = None if fault.retry_after_s is None else max(1, round(fault.retry_after_s))
        if fault.status == 429 and pool.spec.upstream_429 == 429:
            return UpstreamLimited(
                f"The provider behind '{name}' limits this gateway. Please retry later.",
                retry_after=after,
            )
        return overloaded(name, after)
    if isinstance(fault, Refused):
        unknown = fault.status in (404, 405)
        why = (
            "does not serve it on this endpoint"
            if unknown
            else "does not take the gateway's credentials"
        )
        return UpstreamRefused(
            f"The server behind '{name}' {why}. Tell the operator of this gateway.",
            code="upstream_model_not_found" if unknown else None,
        )
    if isinstance(fault, NotUnderstood):
        return UpstreamBroken(f"The server behind '{name}' answered with what is no answer.")
    if isinstance(fault, Silent):
        return UpstreamTimeout(f"The server behind '{name}' was silent for too long.")
    if isinstance(fault, UpstreamFault):
        return unavailable(name, None)
    return fault


def nobody(pool: Pool, api: Api) -> Exception:
    """Why no target of the model can be asked at all."""
    name = pool.names[0]
    able = [
        upstream
        for remote in pool.remotes
        if api in remote.spec.apis
        for upstream in remote.upstreams
    ]
    if not pool.replicas and not pool.speaks(api):
        offered = sorted(API_PATHS[a] for r in pool.spec.remotes for a in r.apis)
        listed = ", ".join(f"/v1{path}" for path in dict.fromkeys(offered))
        return EndpointNotSupported(
            f"The model '{name}' is not served on this endpoint. Use it with {listed}.",
            param="model",
        )
    if any(upstream.works for upstream in able):
        return overloaded(name, 1)
    waits = [upstream.breaker.retry_in_s for upstream in able]
    if not able and any(replica.engine.last_error is None for replica in pool.replicas):
        return ModelLoading("The model is still loading. Please retry shortly.")
    return unavailable(name, max(1, round(min(waits))) if waits and min(waits) > 0 else None)


def overloaded(name: str, after: int | None) -> UpstreamOverloaded:
    """The error for servers that have too much to do."""
    return UpstreamOverloaded(
        f"Every server of '{name}' is overloaded. Please retry shortly.", retry_after=after
    )


def unavailable(name: str, after: int | None) -> UpstreamUnavailable:
    """The error for servers that do not answer."""
    return UpstreamUnavailable(
        f"No server of '{name}' answers now. Please retry shortly.", retry_after=after
    )
