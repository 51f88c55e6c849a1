"""Predictions in Vertex AI's shape, on /predict and on the routes that Vertex names."""

import json
import socket
from typing import Any

import httpx
import pytest
from server_process import MESSAGES, PATIENCE_S, SENTENCE, NewServer, ServerProcess

from gateway.errors import InvalidRequest
from gateway.protocol.predict import MAX_INSTANCES, read_predict_request

CHAT = {"messages": MESSAGES}
WRAPPED = {"@requestFormat": "chatCompletions", "messages": MESSAGES, "max_tokens": 5}
ROUTE = "/v1/endpoints/12/deployedModels/34:predict"
HEALTH = "/v1/endpoints/12/deployedModels/34"
KEY = "k" * 20


@pytest.fixture(scope="module")
def bundled(shared_server: NewServer) -> ServerProcess:
    return shared_server(ENGINE="onnx", MAX_NUM_SEQS="4")


def post(server: ServerProcess, body: Any, path: str = "/predict", status: int = 200) -> Any:
    reply = httpx.post(f"{server.url}{path}", json=body, timeout=PATIENCE_S)
    assert reply.status_code == status, reply.text
    return reply.json()


def test_predictions_are_the_answers_in_order(bundled: ServerProcess) -> None:
    parameters = {"temperature": 0, "max_tokens": 6}
    instances = [
        {**CHAT, "max_tokens": 3},
        {"prompt": "The sky is"},
        CHAT,
        {"prompt": ["One", "Two"], "n": 2, "temperature": None},
        WRAPPED,
    ]
    found = post(bundled, {"instances": instances, "parameters": parameters})
    assert set(found) == {"predictions"}
    kinds = [prediction["object"] for prediction in found["predictions"]]
    chat, text = "chat.completion", "text_completion"
    assert kinds == [chat, text, chat, text, chat]
    counts = [prediction["usage"]["completion_tokens"] for prediction in found["predictions"]]
    assert counts[0] == 3
    assert all(count <= most for count, most in zip(counts, (3, 6, 6, 24, 5), strict=True))
    alone = post(bundled, {**CHAT, **parameters}, "/v1/chat/completions")
    assert found["predictions"][2]["choices"] == alone["choices"]
    alone = post(bundled, {"prompt": "The sky is", **parameters}, "/v1/completions")
    assert found["predictions"][1]["choices"] == alone["choices"]
    assert len(found["predictions"][3]["choices"]) == 4


def test_the_answer_to_model_gardens_clients(bundled: ServerProcess) -> None:
    """They send one wrapped instance and read predictions["choices"]."""
    found = post(bundled, {"instances": [WRAPPED]})["predictions"]
    assert found["choices"][0]["message"]["content"]
    assert found["usage"]["completion_tokens"] <= 5
    assert isinstance(post(bundled, {"instances": [CHAT]})["predictions"], list)
    assert isinstance(post(bundled, {"instances": [WRAPPED] * 2})["predictions"], list)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "instances"),
        ({"instances": []}, "instances"),
        ({"instances": {}}, "instances"),
        ({"instances": [3]}, "instances[0]"),
        ({"instances": [CHAT, None]}, "instances[1]"),
        ({"instances": [CHAT] * (MAX_INSTANCES + 1)}, "instances"),
        ({"instances": [{**CHAT, "n": 16}] * 200}, "instances"),
        ({"instances": [{}]}, "instances[0].messages"),
        ({"instances": [CHAT, {"messages": []}]}, "instances[1].messages"),
        ({"instances": [{**CHAT, "prompt": "x"}]}, "instances[0].prompt"),
        (
            {"instances": [CHAT, {"messages": [{"role": "robot", "content": "x"}]}]},
            "instances[1].messages[0].role",
        ),
        ({"instances": [{"prompt": "x", "logprobs": 99}]}, "instances[0].logprobs"),
        ({"instances": [{"prompt": [1, "x"]}]}, "instances[0].prompt[1]"),
        ({"instances": [{"@requestFormat": "chatCompletions"}]}, "instances[0].messages"),
        ({"instances": [{"@requestFormat": "xml", **CHAT}]}, "instances[0].@requestFormat"),
        ({"instances": [{"@requestFormat": 3, **CHAT}]}, "instances[0].@requestFormat"),
        ({"instances": [{**CHAT, "stream": True}]}, "instances[0].stream"),
        ({"instances": [CHAT], "parameters": {"stream": True}}, "parameters.stream"),
        ({"instances": [CHAT], "parameters": 3}, "parameters"),
        ({"instances": [CHAT], "parameters": {"temperature": 9}}, "parameters.temperature"),
        ({"instances": [CHAT], "parameters": {"messages": MESSAGES}}, "parameters.messages"),
        ({"instances": [CHAT], "parameters": {"prompt": "x"}}, "parameters.prompt"),
        (
            {"instances": [{**CHAT, "temperature": 9}], "parameters": {"temperature": 1}},
            "instances[0].temperature",
        ),
    ],
)
def test_bad_input_names_the_field_where_it_was_written(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_predict_request(body)
    assert caught.value.param == param
    assert f"'{param}'" in caught.value.message


def test_one_bad_instance_fails_the_call(bundled: ServerProcess) -> None:
    for instances, param, code in (
        ([CHAT, {"prompt": "x " * 5000}], "instances[1].prompt", "context_length_exceeded"),
        ([CHAT, {"prompt": [1, 999_999]}], "instances[1].prompt[1]", "invalid_value"),
        ([{**CHAT, "max_tokens": 5000}], "instances[0].max_tokens", "context_length_exceeded"),
        ([{"prompt": "x", "suffix": "y"}], "instances[0].suffix", "unsupported_parameter"),
    ):
        error = post(bundled, {"instances": instances}, status=400)["error"]
        assert (error["param"], error["code"]) == (param, code)
        assert param in error["message"]
    body = {"instances": [CHAT, {**CHAT, "model": "gpt-9"}]}
    assert post(bundled, body, status=404)["error"]["code"] == "model_not_found"
    samples = bundled.metrics()
    assert samples["gateway_requests_in_flight"] == 0


def test_vertex_names_the_port_and_the_routes(new_server: NewServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = new_server(
        options={"text": SENTENCE},
        API_KEYS=KEY,
        PORT="1",
        AIP_HTTP_PORT=str(port),
        AIP_HEALTH_ROUTE=HEALTH,
        AIP_PREDICT_ROUTE=ROUTE,
    ).wait_ready()
    assert server.port == port
    assert httpx.get(f"{server.url}{HEALTH}").json() == {"status": "ready"}
    assert httpx.head(f"{server.url}{HEALTH}").status_code == 200
    # The probe needs no key; everything else on that path, and the predictions, do.
    assert httpx.post(f"{server.url}{HEALTH}", json={}).status_code == 401
    body = {"instances": [CHAT, {"prompt": "x", "max_tokens": 60}]}
    assert httpx.post(f"{server.url}{ROUTE}", json=body).status_code == 401
    headers = {"authorization": f"Bearer {KEY}"}
    for path in (ROUTE, "/predict"):
        reply = httpx.post(f"{server.url}{path}", json=body, headers=headers, timeout=PATIENCE_S)
        chat, text = reply.json()["predictions"]
        assert chat["choices"][0]["message"]["content"] == SENTENCE
        assert text["choices"][0]["text"] == SENTENCE
        assert reply.headers["x-gateway-model"] == "tiny-chat"
    line = [line for line in server.log_lines() if line.get("route") == ROUTE][-1]
    assert (line["instances"], line["status"]) == (2, 200)
    assert line["completion_tokens"] == sum(p["usage"]["completion_tokens"] for p in (chat, text))


def test_a_route_of_our_own_keeps_its_bodies(new_server: NewServer) -> None:
    """Vertex passes raw bodies on, so a deployment may name the chat route."""
    server = new_server(
        options={"text": SENTENCE}, AIP_PREDICT_ROUTE="/v1/chat/completions", AIP_HEALTH_ROUTE=""
    ).wait_ready()
    answer = post(server, CHAT, "/v1/chat/completions")
    assert answer["choices"][0]["message"]["content"] == SENTENCE


def test_leaving_frees_every_instance(shared_server: NewServer) -> None:
    server = shared_server(options={"ttft_s": 10_000}, MAX_NUM_SEQS="4")
    body = json.dumps({"instances": [CHAT, {"prompt": ["a", "b"]}, CHAT]}).encode()

    def load() -> float:
        samples = server.metrics()
        return samples["vllm:num_requests_running"] + samples["vllm:num_requests_waiting"]

    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        sock.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        server.wait_for(lambda: load() == 4, "all prompts with the engine")
    server.wait_for(lambda: load() == 0, "all of them to be gone")
    server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 0, "the request")
