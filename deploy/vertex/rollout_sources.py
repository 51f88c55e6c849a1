"""Where a rollout sees how its new version does: Cloud Monitoring, or requests of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from deploy.endpoints import api_address
from deploy.vertex import VertexError
from deploy.vertex.alerts_promql import LATENCIES, RESPONSES, of_endpoint
from deploy.vertex.health_window import Window
from deploy.vertex.monitor_rest import SCOPES, MonitoringApi
from deploy.vertex.spec import Spec

OVERRIDE = "VERTEX_INVOKE_ENDPOINT"
PROBE = {"messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 1}
PROBE_TIMEOUT_S = 60.0
# Google's own metrics are sampled once a minute.
SAMPLED_S = 60
# Until they can be read, minutes go by.
LAG_S = 300.0


class Source(Protocol):
    """Looks at one version from ``begin`` on."""

    def begin(self, deployed_id: str) -> None:
        """A step begins in which this version has traffic."""

    def close(self) -> None:
        """Free the connections."""

    def look(self) -> Window:
        """What has been seen since. Raises VertexError when that cannot be told."""


class MonitoringSource:
    """What Vertex AI's front counts for a deployed model, in PromQL through Cloud Monitoring."""

    def __init__(
        self, api: MonitoringApi, endpoint_id: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._endpoint_id = endpoint_id
        self._now = now
        self._deployed_id = ""
        self._since = self._first = 0.0

    def begin(self, deployed_id: str) -> None:
        """See Source. Looks back into the step before for what could not be read then."""
        if deployed_id != self._deployed_id:
            self._deployed_id, self._first = deployed_id, self._now()
        self._since = max(self._first, self._now() - LAG_S)

    def close(self) -> None:
        """See Source."""
        self._api.__exit__()

    def look(self) -> Window:
        """See Source."""
        passed = max(SAMPLED_S, math.ceil(self._now() - self._since))
        own = f'deployed_model_id="{self._deployed_id}"'
        every = of_endpoint(RESPONSES, self._endpoint_id, own)
        failed = of_endpoint(RESPONSES, self._endpoint_id, own, 'response_code=~"5.."')
        total = of_endpoint(f"{LATENCIES}_bucket", self._endpoint_id, own, 'latency_type="total"')
        query = self._api.query
        return Window(
            requests=query(f"sum(increase({every}[{passed}s]))") or 0.0,
            errors=query(f"sum(increase({failed}[{passed}s]))") or 0.0,
            p95_ms=query(f"histogram_quantile(0.95, sum by (le) (increase({total}[{passed}s])))"),
        )


class ProbeSource:
    """One short chat completion to the version itself at every look, whatever its traffic.

    Args:
        session: sends requests as ``requests.Session`` does, with credentials.
        endpoint_url: of the endpoint, such as https://DNS/v1/projects/P/locations/R/endpoints/E.
    """

    def __init__(self, session: Any, endpoint_url: str) -> None:
        self._session = session
        self._endpoint_url = endpoint_url
        self._url = ""
        self._failed = 0
        self._times_ms: list[float] = []

    def begin(self, deployed_id: str) -> None:
        """See Source."""
        self._url = f"{self._endpoint_url}/deployedModels/{deployed_id}/invoke/v1/chat/completions"
        self._failed, self._times_ms = 0, []

    def close(self) -> None:
        """See Source."""
        self._session.close()

    def look(self) -> Window:
        """See Source. A probe that gets no answer has failed; 429 is an answer."""
        import requests
        from google.auth.exceptions import GoogleAuthError

        begun = time.perf_counter()
        try:
            answer = self._session.post(self._url, json=PROBE, timeout=PROBE_TIMEOUT_S)
            failed = answer.status_code >= 400 and answer.status_code != 429
        except GoogleAuthError as error:
            raise VertexError(f"no probe could be sent, for want of credentials: {error}") from None
        except requests.RequestException:
            failed = True
        self._failed += failed
        self._times_ms.append((time.perf_counter() - begun) * 1000)
        ordered = sorted(self._times_ms)
        p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
        return Window(len(ordered), self._failed, p95)


def open_probes(spec: Spec, endpoint: Any) -> ProbeSource:
    """Probes of the endpoint (the API's message). Raises VertexError where none can be sent."""
    if spec.mode != "invoke":
        raise VertexError(
            "probes reach a version through invoke, and this endpoint has mode: predict: take "
            "--watch monitoring"
        )
    import google.auth
    import requests
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import AuthorizedSession

    try:
        found = api_address(OVERRIDE, f"https://{endpoint.dedicated_endpoint_dns}")
    except ValueError as error:
        raise VertexError(str(error)) from None
    url = f"{found.url}/v1/{spec.endpoint_name}"
    if found.emulated:
        return ProbeSource(requests.Session(), url)
    try:
        credentials, _ = google.auth.default(scopes=SCOPES)
    except GoogleAuthError as error:
        raise VertexError(f"no credentials for Google Cloud ({error})") from None
    return ProbeSource(AuthorizedSession(credentials), url)
