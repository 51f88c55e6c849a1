"""What the cloud refuses, as one sentence with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deploy.vertex import VertexError

AGAIN = "give the same command again: it goes on where this ended"


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn the SDK's errors into VertexError; ``doing`` says what was under way."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.protobuf.json_format import ParseError

    try:
        yield
    except GoogleAPIError as error:
        raise VertexError(f"{doing}: {sentence(error)}") from None
    except GoogleAuthError as error:
        raise VertexError(
            f"{doing}: no valid credentials for Google Cloud ({_short(str(error))}): run gcloud "
            "auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS"
        ) from None
    except OSError as error:
        # requests' own errors are OSErrors: the connection could not be made, or broke.
        raise VertexError(
            f"{doing}: the connection to Vertex AI failed ({_short(str(error))}): {AGAIN}"
        ) from None
    except ParseError as error:
        raise VertexError(
            f"{doing}: what answered is not Vertex AI ({_short(str(error))}): look at "
            "VERTEX_API_ENDPOINT"
        ) from None


def operation_error(status: Any) -> Exception:
    """The SDK's exception for the ``google.rpc.Status`` that an operation ended with."""
    from google.api_core.exceptions import from_grpc_status

    found: Exception = from_grpc_status(status.code, status.message)
    return found


def sentence(error: Any) -> str:
    """What one exception of the SDK means and what to do about it."""
    from google.api_core import exceptions as api

    told = _short(str(getattr(error, "message", "") or error))
    lower = told.lower()
    if isinstance(error, api.TooManyRequests):
        if "quota" in lower:
            return (
                f"the project's quota is used up ({told}): ask for more at IAM & Admin > Quotas, "
                "or take fewer replicas, another machine or another region"
            )
        return (
            f"the region has none of these machines free ({told}): try again later, another "
            "machine or region, spot: true, or a reservation"
        )
    if isinstance(error, api.Forbidden):
        if "has not been used" in lower or "service_disabled" in lower or "disabled" in lower:
            return (
                f"the API is not enabled ({told}): run gcloud services enable "
                "aiplatform.googleapis.com"
            )
        return (
            f"not permitted ({told}): the caller needs roles/aiplatform.user in the project, and "
            "roles/iam.serviceAccountUser on the deployment's service_account"
        )
    if isinstance(error, api.Unauthorized):
        return f"not authenticated ({told}): run gcloud auth application-default login"
    if "model server" in lower:
        return (
            f"the container did not become healthy ({told}): read its log in Cloud Logging, "
            "correct image or environment in the spec, and apply again"
        )
    if isinstance(error, api.FailedPrecondition):
        return f"not possible as things are ({told}): change that, then {AGAIN}"
    if isinstance(error, api.NotFound):
        return f"not found ({told}): look at project, region and image in the spec"
    if isinstance(error, api.Conflict):
        return f"in conflict with something else ({told}): wait until that is done, then {AGAIN}"
    if isinstance(error, api.BadRequest):
        return f"refused ({told}): correct the spec"
    if isinstance(error, api.ServerError | api.RetryError):
        return f"Vertex AI could not do it ({told}): {AGAIN}"
    return f"{told}: {AGAIN}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 400 else line[:399] + "…"
