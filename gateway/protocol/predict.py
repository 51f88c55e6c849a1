"""The body of ``POST /predict``, in the shape that Vertex AI gives to predictions.

    {"instances": [...], "parameters": {...}} -> {"predictions": [...]}

An instance is the body of a chat completion or of a completion; ``parameters`` fill in what
instances leave out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.errors import InvalidRequest
from gateway.protocol.chat_request import ChatRequest, read_chat_request
from gateway.protocol.completion_parameters import MAX_TOTAL_CHOICES
from gateway.protocol.completion_request import CompletionRequest, read_completion_request
from gateway.protocol.parameters import Parameter, index, read_fields
from gateway.protocol.values import ListOf, Mapping, missing, wrong_value

MAX_INSTANCES = 256
MAX_FIELDS = 256

# The name under which Model Garden's containers take chat completions.
FORMAT = "@requestFormat"
CHAT_COMPLETIONS = "chatCompletions"

INSTANCE = Mapping(None, MAX_FIELDS)
PREDICT = index(
    (
        Parameter(
            "instances",
            "Bodies of chat completions (with messages) or completions (with prompt).",
            ListOf(INSTANCE, MAX_INSTANCES, 1),
            required=True,
        ),
        Parameter("parameters", "Fields for the instances that lack them.", INSTANCE),
    )
)


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A checked request.

    Attributes:
        instances: in the order of the request.
        sources: the fields that each instance gives itself; the others are parameters.
        unwrapped: the one prediction is answered in place of the array of predictions, as
            Model Garden's containers answer an instance with ``@requestFormat``.
    """

    instances: list[ChatRequest | CompletionRequest]
    sources: list[frozenset[str]]
    unwrapped: bool

    def relocated(self, error: Exception, position: int) -> Exception:
        """An error of one instance, naming the field where the caller wrote it."""
        return relocated(error, position, self.sources[position])


def read_predict_request(document: dict[str, Any], *, strict: bool = False) -> PredictRequest:
    """Check a decoded body. Raises InvalidRequest naming the field at fault."""
    fields = read_fields(document, PREDICT, strict=strict)
    given: list[dict[str, Any]] = fields["instances"]
    parameters: dict[str, Any] = fields.get("parameters", {})
    for name in ("messages", "prompt", FORMAT):
        if name in parameters:
            wrong_value(f"parameters.{name}", "it belongs into the instances")
    instances: list[ChatRequest | CompletionRequest] = []
    sources: list[frozenset[str]] = []
    for position, entry in enumerate(given):
        own = frozenset(name for name, value in entry.items() if value is not None)
        body = {**parameters, **{name: entry[name] for name in own}}
        try:
            instances.append(read_instance(body, strict=strict))
        except InvalidRequest as error:
            raise relocated(error, position, own) from None
        sources.append(own)
    if (choices := sum(choices_of(instance) for instance in instances)) > MAX_TOTAL_CHOICES:
        wrong_value(
            "instances",
            f"they ask for {choices} choices; at most {MAX_TOTAL_CHOICES} are allowed",
        )
    unwrapped = len(given) == 1 and FORMAT in sources[0]
    return PredictRequest(instances, sources, unwrapped)


def read_instance(body: dict[str, Any], *, strict: bool) -> ChatRequest | CompletionRequest:
    """One instance. Raises InvalidRequest naming its own field."""
    form = body.pop(FORMAT, None)
    if form is not None and form != CHAT_COMPLETIONS:
        wrong_value(FORMAT, f"expected '{CHAT_COMPLETIONS}'")
    if body.get("stream"):
        raise InvalidRequest(
            "'stream' is not supported: predictions come in one piece.",
            param="stream",
            code="unsupported_parameter",
        )
    is_chat = form is not None or body.get("messages") is not None
    if is_chat and body.get("prompt") is not None:
        wrong_value("prompt", "it cannot be combined with messages")
    if is_chat:
        return read_chat_request(body, strict=strict)
    if body.get("prompt") is None:
        missing("messages")
    return read_completion_request(body, strict=strict)


def choices_of(instance: ChatRequest | CompletionRequest) -> int:
    """How many choices an instance asks for."""
    return instance.choices if isinstance(instance, CompletionRequest) else instance.n


def relocated(error: Exception, position: int, own: frozenset[str]) -> Exception:
    """The same fault with the path of the field within the whole body."""
    param, code = getattr(error, "param", None), getattr(error, "code", None)
    message = str(error)
    if param is None:
        return InvalidRequest(f"instances[{position}]: {message}", code=code)
    top = param.split(".", 1)[0].split("[", 1)[0]
    from_parameters = top not in own and top not in ("messages", "prompt", FORMAT)
    path = f"parameters.{param}" if from_parameters else f"instances[{position}].{param}"
    if f"'{param}'" in message:
        message = message.replace(f"'{param}'", f"'{path}'", 1)
    else:
        message = f"{path}: {message}"
    return InvalidRequest(message, param=path, code=code)
