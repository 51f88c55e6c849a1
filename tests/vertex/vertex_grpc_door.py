"""The emulator's methods over gRPC, which is how the library talks to the cloud itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from google.cloud import aiplatform_v1, aiplatform_v1beta1
from google.longrunning import operations_pb2
from google.protobuf import json_format
from vertex_emulated_checks import Refused
from vertex_emulator import Emulator, Seen

from deploy.vertex.client import Cloud

VERSIONS = {"v1": aiplatform_v1.types, "v1beta1": aiplatform_v1beta1.types}
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ALREADY_EXISTS,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
ANSWERS = {
    "getEndpoint": "Endpoint",
    "updateEndpoint": "Endpoint",
    "getModel": "Model",
    "listModels": "ListModelsResponse",
}


class GrpcCloud(Cloud):
    """The cloud as in production, but for TLS and credentials."""

    def _client(self, kind: Any) -> Any:
        if kind not in self._clients:
            channel = grpc.insecure_channel(self.address)
            self._clients[kind] = kind(transport=kind.get_transport_class("grpc")(channel=channel))
        return self._clients[kind]


class GrpcDoor(grpc.GenericRpcHandler):
    """Serves the emulator on a port of its own while it is entered."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._pool = ThreadPoolExecutor(4)
        self._server = grpc.server(self._pool, handlers=[self])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()

    def service(self, handler_call_details: Any) -> Any:
        service, _, method = handler_call_details.method.lstrip("/").partition("/")
        beta = ".v1beta1." in service

        def call(request: bytes, context: grpc.ServicerContext) -> bytes:
            types = VERSIONS["v1beta1" if beta else "v1"]
            seen = as_rest(method, request, types)
            try:
                with self._emulator.lock:
                    self._emulator.seen.append(seen)
                    answer = self._emulator.answer(seen, "v1beta1" if beta else "v1")
            except Refused as refused:
                context.abort(CODES[refused.code], refused.message)
            return as_message(seen.method, answer, types).SerializeToString()

        return grpc.unary_unary_rpc_method_handler(call)


def as_rest(method: str, content: bytes, types: Any) -> Seen:
    """The request that REST would have been."""
    name = method[0].lower() + method[1:]
    if name in ("getOperation", "listOperations"):
        message = getattr(operations_pb2, f"{method}Request").FromString(content)
        return Seen("GET", message.name, {}, {}, name, False)
    kind = getattr(types, f"{method}Request")
    request = json_format.MessageToDict(kind.pb(kind.deserialize(content)))
    query, path = {}, request.pop("name", "") or request.pop("parent", "")
    if name == "uploadModel":
        path += "/models:upload"
    elif name == "listModels":
        path, query = f"{path}/models", {"filter": request["filter"]}
    elif name == "createEndpoint":
        path, query = f"{path}/endpoints", {"endpointId": request["endpointId"]}
        request = request["endpoint"]
    elif name == "updateEndpoint":
        query, request = {"updateMask": request["updateMask"]}, request["endpoint"]
        path = request["name"]
    elif name == "updateEndpointLongRunning":
        path = f"{request['endpoint']['name']}:update"
    elif isinstance(request.get("endpoint"), str):
        path = f"{request.pop('endpoint')}:{name}"
    changes = not name.startswith(("get", "list"))
    return Seen("POST" if changes else "GET", path, query, request, name, changes)


def as_message(name: str, answer: dict[str, Any], types: Any) -> Any:
    """The protobuf message of a JSON answer."""
    if name == "listOperations":
        return json_format.ParseDict(answer, operations_pb2.ListOperationsResponse())
    if name not in ANSWERS:
        return json_format.ParseDict(answer, operations_pb2.Operation())
    kind = getattr(types, ANSWERS[name])
    return json_format.ParseDict(answer, kind.pb(kind()))
