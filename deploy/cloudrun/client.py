"""The seam to Google's library: which server, which credentials.

``CLOUDRUN_API_ENDPOINT=http://127.0.0.1:PORT`` puts an emulator in the cloud's place; only there
does the library go without credentials. Everything goes over REST, in both cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from deploy.cloudrun import CloudRunError
from deploy.endpoints import api_address

OVERRIDE = "CLOUDRUN_API_ENDPOINT"
INSTALL = "Cloud Run's library is missing: pip install 'llm-gateway[cloudrun]'"


@dataclass(frozen=True, slots=True)
class Cloud:
    """Cloud Run's control plane.

    Attributes:
        services: a ``run_v2.ServicesClient``.
        poll_s: seconds between two looks at a long-running operation.
    """

    services: Any
    poll_s: float


@contextmanager
def open_cloud() -> Iterator[Cloud]:
    """The cloud, until the end of the context.

    Raises CloudRunError without the library, without credentials, and for an override that is
    neither https nor this machine.
    """
    try:
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import run_v2
        from google.cloud.run_v2.services.services.transports.rest import ServicesRestTransport
    except ImportError:
        raise CloudRunError(INSTALL) from None
    try:
        found = api_address(OVERRIDE, "https://run.googleapis.com")
    except ValueError as error:
        raise CloudRunError(str(error)) from None
    try:
        transport = ServicesRestTransport(
            host=found.url if found.emulated else found.netloc,
            credentials=AnonymousCredentials() if found.emulated else None,
            url_scheme="http" if found.emulated else "https",
        )
    except GoogleAuthError as error:
        raise CloudRunError(
            f"no credentials for Google Cloud ({error}): run gcloud auth application-default "
            "login, or set GOOGLE_APPLICATION_CREDENTIALS"
        ) from None
    try:
        yield Cloud(run_v2.ServicesClient(transport=transport), 0.01 if found.emulated else 3.0)
    finally:
        transport.close()


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn the library's errors into CloudRunError; ``doing`` says what was under way."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.protobuf.json_format import ParseError

    try:
        yield
    except GoogleAPIError as error:
        raise CloudRunError(f"{doing}: {_sentence(error)}") from None
    except GoogleAuthError as error:
        raise CloudRunError(
            f"{doing}: no valid credentials for Google Cloud ({_short(error)}): run gcloud auth "
            "application-default login, or set GOOGLE_APPLICATION_CREDENTIALS"
        ) from None
    except OSError as error:  # of requests: no connection, or a broken one
        raise CloudRunError(
            f"{doing}: the connection to Cloud Run failed ({_short(error)}): give the same command "
            "again: it goes on where this ended"
        ) from None
    except ParseError as error:  # a sign-in page of the network's, or of a proxy
        raise CloudRunError(
            f"{doing}: what answered is not Cloud Run ({_short(error)}): look at the proxy "
            f"(HTTPS_PROXY) and at {OVERRIDE}"
        ) from None


def _sentence(error: Any) -> str:
    from google.api_core import exceptions as api

    told = _short(getattr(error, "message", "") or error)
    if isinstance(error, api.TooManyRequests):
        return f"a quota is used up ({told}): ask for more at IAM & Admin > Quotas, or wait"
    if isinstance(error, api.Forbidden):
        if "has not been used" in told or "disabled" in told.lower():
            return f"the API is not enabled ({told}): gcloud services enable run.googleapis.com"
        return (
            f"not permitted ({told}): the caller needs roles/run.admin in the project, and "
            "roles/iam.serviceAccountUser on the spec's service_account"
        )
    if isinstance(error, api.Unauthorized):
        return f"not authenticated ({told}): run gcloud auth application-default login"
    if isinstance(error, api.Conflict):
        return f"in conflict with another change ({told}): wait until that is done, then try again"
    if isinstance(error, api.BadRequest):
        return f"refused ({told}): correct the spec"
    return told


def _short(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 400 else f"{line[:400]}..."
