"""Cloud Monitoring over REST: alert policies, dashboards, and queries in PromQL.

The library's clients speak gRPC alone and there is none for dashboards, so requests are made here,
with the library's messages where it has them. ``MONITORING_API_ENDPOINT=http://127.0.0.1:PORT``
puts an emulator in the cloud's place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from deploy.endpoints import api_address
from deploy.vertex import VertexError
from deploy.vertex.client import INSTALL

OVERRIDE = "MONITORING_API_ENDPOINT"
ADDRESS = "https://monitoring.googleapis.com"
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
TIMEOUT_S = 30.0
RETRIED = frozenset({429, 500, 502, 503, 504})
ATTEMPTS = 4
_HINTS = {
    401: "run gcloud auth application-default login",
    403: "the account needs roles/monitoring.editor, and the project monitoring.googleapis.com "
    "enabled",
}


class MonitoringApi:
    """One project's Cloud Monitoring.

    Args:
        session: sends requests as ``requests.Session`` does, with credentials.
        address: scheme and host.
        pause: sleeps; seconds.
    """

    def __init__(
        self,
        project: str,
        session: Any,
        address: str = ADDRESS,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.project = project
        self._session = session
        self._address = address.rstrip("/")
        self._pause = pause

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def list(self, path: str, field: str) -> Iterator[dict[str, Any]]:
        """Every item of a collection, page by page. Raises VertexError."""
        token = ""
        while True:
            parameters = {"pageSize": "100"} | ({"pageToken": token} if token else {})
            page = self.call("GET", path, parameters=parameters)
            yield from page.get(field, [])
            token = page.get("nextPageToken", "")
            if not token:
                return

    def query(self, expression: str) -> float | None:
        """The value of an instant query that has one series at most; None for none and for NaN.

        Raises VertexError.
        """
        path = f"v1/projects/{self.project}/location/global/prometheus/api/v1/query"
        # A POST because expressions are long; it changes nothing.
        answer = self.call("POST", path, form={"query": expression}, safe=True)
        try:
            values = [float(series["value"][1]) for series in answer["data"]["result"]]
        except (KeyError, IndexError, TypeError, ValueError):
            raise VertexError(f"Cloud Monitoring's answer to {expression} is no vector") from None
        if len(values) > 1:
            raise VertexError(f"{len(values)} series came for one figure: {expression}")
        return values[0] if values and not math.isnan(values[0]) else None

    def call(
        self,
        verb: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        parameters: dict[str, str] | None = None,
        form: dict[str, str] | None = None,
        safe: bool = False,
    ) -> dict[str, Any]:
        """One request; tried again when nothing can come of it twice. Raises VertexError."""
        import requests
        from google.auth.exceptions import GoogleAuthError

        safe = safe or verb in ("GET", "PATCH", "DELETE")
        url = f"{self._address}/{path}"
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1 or not safe
            try:
                answer = self._session.request(
                    verb, url, params=parameters, json=body, data=form, timeout=TIMEOUT_S
                )
            except GoogleAuthError as error:
                raise VertexError(
                    f"no valid credentials for Google Cloud ({error}): run gcloud auth "
                    "application-default login"
                ) from None
            except requests.RequestException as error:
                if last:
                    raise VertexError(f"{self._address} cannot be reached: {error}") from None
            else:
                if answer.status_code < 400:
                    return decoded(answer)
                if last or answer.status_code not in RETRIED:
                    raise VertexError(explain(verb, path, answer))
            self._pause(0.5 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")


def decoded(answer: Any) -> dict[str, Any]:
    """The JSON object of an answer, {} for none. Raises VertexError."""
    try:
        found = answer.json() if answer.content else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise VertexError(f"{answer.url} answered with something that is no JSON object")
    return found


def explain(verb: str, path: str, answer: Any) -> str:
    """What went wrong, from the error that Google answered with."""
    try:
        document = answer.json()
        error = document["error"]
        message = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        message = answer.reason or "no explanation"
    hint = _HINTS.get(answer.status_code)
    told = f"Cloud Monitoring refused {verb} {path} with {answer.status_code}: {message}"
    return f"{told}; {hint}" if hint else told


def open_monitoring(project: str) -> MonitoringApi:
    """The project's Cloud Monitoring. Raises VertexError without the libraries, without
    credentials, and for an override that is neither https nor this machine."""
    try:
        import requests
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import AuthorizedSession
    except ImportError:
        raise VertexError(INSTALL) from None
    import google.auth

    try:
        found = api_address(OVERRIDE, ADDRESS)
    except ValueError as error:
        raise VertexError(str(error)) from None
    if found.emulated:
        return MonitoringApi(project, requests.Session(), found.url, pause=lambda _: None)
    try:
        credentials, _ = google.auth.default(scopes=SCOPES)
    except GoogleAuthError as error:
        raise VertexError(
            f"no credentials for Google Cloud ({error}): run gcloud auth application-default "
            "login, or set GOOGLE_APPLICATION_CREDENTIALS"
        ) from None
    return MonitoringApi(project, AuthorizedSession(credentials), found.url)
