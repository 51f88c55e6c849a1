"""Google's SDK and OpenAI's, unmodified, through Vertex AI's front into a real gateway."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
import requests
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from invoke_front import ENDPOINT, VertexFront
from prober_container import PREDICT_ROUTE
from requests.adapters import HTTPAdapter
from server_process import MESSAGES, SENTENCE, ServerProcess
from vertex_emulator import Emulator

JSON = {"content-type": "application/json"}
CHAT = {"messages": MESSAGES}
INSTANCES: list[Any] = [CHAT, {"prompt": "The sky is"}]


class ToFront(HTTPAdapter):
    """Takes the place of the endpoint's own DNS name, and of TLS."""

    def __init__(self, front: VertexFront) -> None:
        super().__init__()
        self._front = front
        self.hosts: list[str] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        asked = urlsplit(str(request.url))
        self.hosts.append(asked.netloc)
        request.url = f"{self._front.url}{asked.path}"
        return super().send(request, *args, **kwargs)


@dataclass
class Site:
    """The front before the container, and the endpoint that the SDK knows."""

    front: VertexFront
    endpoint: Any
    adapter: ToFront


@pytest.fixture(scope="module")
def site(container: ServerProcess) -> Iterator[Site]:
    with warnings.catch_warnings():  # of the SDK's own imports
        warnings.simplefilter("ignore")
        from google.cloud import aiplatform
    with Emulator(polls=1) as cloud:
        aiplatform.init(
            project="some-project",
            location="us-central1",
            credentials=AnonymousCredentials(),
            api_endpoint=cloud.url,
            api_transport="rest",
        )
        endpoint = aiplatform.Endpoint.create(
            display_name="e", endpoint_id="77", dedicated_endpoint_enabled=True
        )
        front = VertexFront({"501": container.url}, predict_route=PREDICT_ROUTE)
        endpoint.authorized_session = AuthorizedSession(AnonymousCredentials())
        adapter = ToFront(front)
        endpoint.authorized_session.mount("https://", adapter)
        try:
            yield Site(front, endpoint, adapter)
        finally:
            endpoint.authorized_session.close()
            front.close()


def text_of(lines: Iterator[bytes]) -> tuple[str, int]:
    """The text of a streamed chat completion, and how many events it came in."""
    events = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    parts = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    return "".join(parts), len(events)


def test_invoke_streams_through_the_sdk(site: Site) -> None:
    body = json.dumps({**CHAT, "stream": True}).encode()
    lines = site.endpoint.invoke("/v1/chat/completions", body, JSON, stream=True)
    text, events = text_of(lines)
    assert text == SENTENCE
    assert events > 2
    assert site.adapter.hosts[-1] == site.endpoint.dedicated_endpoint_dns


def test_invoke_answers_through_the_sdk(site: Site) -> None:
    reply = site.endpoint.invoke("/v1/chat/completions", json.dumps(CHAT).encode(), JSON)
    assert reply.json()["choices"][0]["message"]["content"] == SENTENCE
    assert reply.headers["x-gateway-model"]
    wrong = site.endpoint.invoke("/v1/chat/completions", b'{"messages": 3}', JSON)
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "messages")


def test_predict_through_the_sdk(site: Site) -> None:
    found = site.endpoint.predict(INSTANCES, parameters={"max_tokens": 60})
    chat, text = found.predictions
    assert chat["choices"][0]["message"]["content"] == SENTENCE
    assert text["choices"][0]["text"] == SENTENCE
    assert found.deployed_model_id == "501"
    with pytest.raises(ValueError, match=r"instances\[0\]\.temperature"):
        site.endpoint.predict([{**CHAT, "temperature": 9}])


def test_raw_predict_invokes_what_the_body_is(site: Site) -> None:
    wrapped = json.dumps({"instances": INSTANCES}).encode()
    assert len(site.endpoint.raw_predict(wrapped, JSON).json()["predictions"]) == 2
    chat = site.endpoint.raw_predict(json.dumps(CHAT).encode(), JSON).json()
    assert chat["choices"][0]["message"]["content"] == SENTENCE
    text = site.endpoint.raw_predict(b'{"prompt": "The sky is", "max_tokens": 60}', JSON).json()
    assert text["choices"][0]["text"] == SENTENCE


def test_stream_raw_predict_invokes_a_stream(site: Site) -> None:
    body = json.dumps({**CHAT, "stream": True}).encode()
    text, events = text_of(site.endpoint.stream_raw_predict(body, JSON))
    assert text == SENTENCE
    assert events > 2


@pytest.mark.parametrize("passes_token", [True, False])
@pytest.mark.parametrize("deployed", ["", "/deployedModels/501"])
def test_openai_sdk_invokes_by_its_base_url(site: Site, deployed: str, passes_token: bool) -> None:
    """Whether or not Vertex leaves its own token in ``Authorization``."""
    site.front.passes_token = passes_token
    url = f"{site.front.url}{ENDPOINT}{deployed}/invoke/v1"
    with openai.OpenAI(base_url=url, api_key="ya29.of-the-caller", max_retries=0) as client:
        assert [model.id for model in client.models.list()]
        with client.chat.completions.create(
            model="bundled", messages=MESSAGES, stream=True
        ) as stream:
            parts = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert "".join(parts) == SENTENCE
        assert len(parts) > 2
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="bundled", messages=MESSAGES, temperature=9)
        assert caught.value.param == "temperature"
