"""The seam to Google's SDK: which server, which credentials, which version of the API.

Nothing else in this package makes clients, so an emulator takes the cloud's place by one
environment variable, ``VERTEX_API_ENDPOINT=http://127.0.0.1:PORT``. Only there does the SDK go
without credentials, and over REST: its gRPC insists on TLS. The same calls and messages go over
gRPC otherwise, the SDK's own default, since its REST asks for operations below ``/ui/``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from deploy.endpoints import api_address
from deploy.vertex import VertexError
from deploy.vertex.spec import Spec

OVERRIDE = "VERTEX_API_ENDPOINT"
INSTALL = "the Vertex AI SDK is missing: pip install 'llm-gateway[vertex]'"


@dataclass(frozen=True, slots=True)
class Cloud:
    """One project's Vertex AI in one region; as a context it closes its connections at the end.

    Attributes:
        address: the API's address, with scheme where it is an emulator's.
        emulated: whether it is one: plain HTTP on this machine, no credentials.
        poll_s: seconds between two looks at a long-running operation.
    """

    project: str
    region: str
    address: str
    emulated: bool
    poll_s: float
    _clients: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._clients:
            self._clients.popitem()[1].transport.close()

    def models(self) -> Any:
        """A ``ModelServiceClient`` of v1. Raises VertexError."""
        from google.cloud import aiplatform_v1

        return self._client(aiplatform_v1.ModelServiceClient)

    def endpoints(self, beta: bool = False) -> Any:
        """An ``EndpointServiceClient`` of v1, or of v1beta1. Raises VertexError."""
        from google.cloud import aiplatform_v1, aiplatform_v1beta1

        version = aiplatform_v1beta1 if beta else aiplatform_v1
        return self._client(version.EndpointServiceClient)

    def _client(self, kind: Any) -> Any:
        from google.api_core.client_options import ClientOptions
        from google.auth.exceptions import GoogleAuthError

        if kind in self._clients:
            return self._clients[kind]
        try:
            self._clients[kind] = kind(
                credentials=self.credentials(),
                transport=self.transport,
                client_options=ClientOptions(api_endpoint=self.address),
            )
        except GoogleAuthError as error:
            raise VertexError(
                f"no credentials for Google Cloud ({error}): run gcloud auth application-default "
                "login, or set GOOGLE_APPLICATION_CREDENTIALS"
            ) from None
        return self._clients[kind]

    @property
    def transport(self) -> str:
        """``grpc`` or ``rest``."""
        return "rest" if self.emulated else "grpc"

    def credentials(self) -> Any:
        """None, which has the SDK look for the default ones, or none at all for an emulator."""
        if not self.emulated:
            return None
        from google.auth.credentials import AnonymousCredentials

        return AnonymousCredentials()

    def init_sdk(self) -> Any:
        """``google.cloud.aiplatform``, set to this project, region and server."""
        from google.cloud import aiplatform

        aiplatform.init(
            project=self.project,
            location=self.region,
            credentials=self.credentials(),
            api_endpoint=self.address,
            api_transport=self.transport,
        )
        return aiplatform


def open_cloud(spec: Spec) -> Cloud:
    """The cloud that the spec is for. Raises VertexError without the SDK, and for an override
    that is neither https nor this machine."""
    try:
        import google.cloud.aiplatform_v1  # noqa: F401
    except ImportError:
        raise VertexError(INSTALL) from None
    try:
        found = api_address(OVERRIDE, f"https://{spec.region}-aiplatform.googleapis.com")
    except ValueError as error:
        raise VertexError(str(error)) from None
    if found.emulated:
        return Cloud(spec.project, spec.region, found.url, emulated=True, poll_s=0.01)
    return Cloud(spec.project, spec.region, found.netloc, emulated=False, poll_s=10.0)
