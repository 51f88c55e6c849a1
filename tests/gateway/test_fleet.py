"""Replicas, restarts, streams carried on, and the fallback, with a real server process."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from server_process import MESSAGES, SENTENCE, NewServer, ServerProcess

LONG = SENTENCE * 4
ROUTE = "/v1/chat/completions"


def sdk(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def streamed(server: ServerProcess, **options: Any) -> str:
    chunks = sdk(server).chat.completions.create(
        model="big", messages=MESSAGES, stream=True, **options
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_stream_goes_on_when_its_engine_dies(new_server: NewServer) -> None:
    server = new_server(
        options={"text": LONG, "die_after_tokens": len(LONG.encode()) * 2 // 3},
        REPLICAS="2",
        SERVED_MODEL_NAME="big",
        RESTART_DELAY_S="3600",
    ).wait_ready()
    assert streamed(server) == LONG
    samples = server.metrics()
    assert samples['gateway_carried_on_requests_total{model_name="big"}'] == 1
    assert samples['gateway_engine_up{engine="0",model_name="big"}'] == 0
    assert samples['gateway_engine_up{engine="1",model_name="big"}'] == 1
    assert httpx.get(f"{server.url}/health/ready").json() == {"status": "ready"}


def test_an_answer_in_one_piece_and_several_choices_go_on_too(new_server: NewServer) -> None:
    length = len(LONG.encode())
    server = new_server(
        options={"text": LONG, "die_after_tokens": length * 2},
        REPLICAS="2",
        SERVED_MODEL_NAME="big",
        RESTART_DELAY_S="3600",
    ).wait_ready()
    answer = sdk(server).chat.completions.create(model="big", messages=MESSAGES, n=3)
    assert [choice.message.content for choice in answer.choices] == [LONG] * 3
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3 * (length + 1)


def test_a_stream_waits_for_its_engine_to_come_back(new_server: NewServer) -> None:
    server = new_server(
        options={"text": LONG, "die_after_tokens": len(LONG.encode()) * 2 // 3},
        SERVED_MODEL_NAME="big",
        RESTART_DELAY_S="0.1",
        CARRY_ON_WAIT_S="30",
    ).wait_ready()
    assert streamed(server) == LONG
    samples = server.metrics()
    assert samples['gateway_engine_restarts_total{engine="0",model_name="big"}'] == 1


def test_without_a_successor_the_stream_ends_with_an_error_event(new_server: NewServer) -> None:
    server = new_server(
        options={"text": LONG, "die_after_tokens": 20},
        SERVED_MODEL_NAME="big",
        RESTART_DELAY_S="3600",
        FALLBACK_MODEL="bundled",
        MAX_NUM_SEQS="1",
    ).wait_ready()
    with pytest.raises(openai.APIError) as caught:
        streamed(server)
    assert caught.value.code == "engine_unavailable"
    # New requests are answered by the fallback, which says so everywhere.
    reply = httpx.post(f"{server.url}{ROUTE}", json={"messages": MESSAGES, "max_tokens": 4})
    assert reply.status_code == 200
    assert reply.headers["x-gateway-degraded"] == "big"
    assert reply.headers["x-gateway-model"] == reply.json()["model"] == "tiny-chat"
    assert reply.json()["usage"]["degraded"] is True
    assert server.metric('gateway_degraded_requests_total{model_name="big"}') == 1
    ready = httpx.get(f"{server.url}/health/ready")
    assert ready.status_code == 200
    assert ready.json() == {"status": "degraded", "down": ["big"]}


def test_a_dead_engine_comes_back_by_itself(new_server: NewServer) -> None:
    server = new_server(
        options={"text": SENTENCE, "die_after_tokens": 60},
        SERVED_MODEL_NAME="big",
        RESTART_DELAY_S="0.1",
    ).wait_ready()
    assert streamed(server) == SENTENCE
    with pytest.raises(openai.APIError):
        streamed(server)

    def ready() -> bool:
        return httpx.get(f"{server.url}/health/ready").status_code == 200

    server.wait_for(ready, "the engine to come back")
    assert streamed(server) == SENTENCE


def test_a_model_that_cannot_start_is_answered_for(new_server: NewServer) -> None:
    server = new_server(
        options={"start_error": "no device"},
        SERVED_MODEL_NAME="big",
        FALLBACK_MODEL="bundled",
        MAX_NUM_SEQS="1",
    ).wait_ready()
    reply = httpx.post(
        f"{server.url}{ROUTE}", json={"model": "big", "messages": MESSAGES, "max_tokens": 4}
    )
    assert reply.status_code == 200
    assert reply.headers["x-gateway-degraded"] == "big"
    version = httpx.get(f"{server.url}/version").json()
    assert version["model"] is None
    kinds = {engine["id"]: (engine["engine"], engine["ready"]) for engine in version["engines"]}
    assert kinds == {"big": ("fake", False), "tiny-chat": ("onnx", True)}


@pytest.mark.parametrize("policy", ["off", "model:other", "key:nobody"])
def test_the_policy_limits_the_fallback(new_server: NewServer, policy: str) -> None:
    server = new_server(
        options={"text": LONG, "die_after_tokens": 5},
        SERVED_MODEL_NAME="big",
        RESTART_DELAY_S="3600",
        FALLBACK_MODEL="bundled",
        FALLBACK_POLICY=policy,
        MAX_NUM_SEQS="1",
    ).wait_ready()
    with pytest.raises(openai.APIError):
        streamed(server)
    reply = httpx.post(f"{server.url}{ROUTE}", json={"messages": MESSAGES})
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "engine_unavailable"


def test_several_models_in_one_gateway(new_server: NewServer) -> None:
    models = [
        {"model_name": "second", "engine": "fake", "engine_options": {"text": "two"}},
        {"model_name": "bundled", "engine": "onnx", "max_num_seqs": 1},
    ]
    server = new_server(
        options={"text": "one"}, SERVED_MODEL_NAME="first,uno", MODELS=json.dumps(models)
    ).wait_ready()
    client = sdk(server)
    assert {model.id for model in client.models.list()} == {
        "first",
        "uno",
        "second",
        "tiny-chat",
        "bundled",
    }
    for name, text in (("first", "one"), ("uno", "one"), ("second", "two")):
        answer = client.chat.completions.create(model=name, messages=MESSAGES)
        assert answer.choices[0].message.content == text
    client.chat.completions.create(model="tiny-chat", messages=MESSAGES, max_tokens=3)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="third", messages=MESSAGES)
    samples = httpx.get(f"{server.url}/metrics").text
    for name in ("first", "second", "tiny-chat"):
        assert f'vllm:num_requests_running{{engine="0",model_name="{name}"}}' in samples


@pytest.mark.parametrize(
    ("models", "complaint"),
    [
        ("{}", "a JSON list of objects is needed"),
        ("[1]", "a JSON list of objects is needed"),
        ("[", "not JSON"),
        ('[{"engine":"onnx"}]', "MODELS[0]: model_name is missing"),
        ('[{"model_name":"x","port":1}]', "port is not a setting of a single model"),
        ('[{"model_name":"x","engine":"gpu"}]', "MODELS[0]: ENGINE"),
        ('[{"model_name":"bundled"}]', "two models are called bundled"),
    ],
)
def test_bad_models_stop_the_start(new_server: NewServer, models: str, complaint: str) -> None:
    server = new_server(MODELS=models)
    assert server.wait_exit() == 1
    assert complaint in server.err.read_text()
    assert "Traceback" not in server.err.read_text()
