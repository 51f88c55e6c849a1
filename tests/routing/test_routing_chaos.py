"""What becomes of a request when another server misbehaves: the table of docs/routing.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos_upstream import WORDS, ChaosUpstream, whole_json
from routing_calls import ask, events, last_line
from routing_files import FAULTS
from server_process import ServerProcess

TEXT = "".join(WORDS)
DOCS = Path(__file__).parents[2] / "docs" / "routing.md"

# Status and code in one piece; status and code as a stream; whether another target is asked.
OUTCOMES: dict[str, tuple[int, str, int, str, bool]] = {
    "refuse": (503, "upstream_unavailable", 503, "upstream_unavailable", True),
    "hang": (504, "upstream_timeout", 504, "upstream_timeout", True),
    "hangmid": (504, "upstream_timeout", 200, "upstream_unavailable", False),
    "reset": (503, "upstream_unavailable", 503, "upstream_unavailable", True),
    "resetmid": (503, "upstream_unavailable", 200, "upstream_unavailable", False),
    "garbage": (502, "upstream_bad_response", 502, "upstream_bad_response", True),
    "garbagemid": (503, "upstream_unavailable", 200, "upstream_unavailable", False),
    "badjsonmid": (503, "upstream_unavailable", 200, "upstream_unavailable", False),
    "errormid": (503, "upstream_unavailable", 200, "upstream_unavailable", False),
    "errorfirst": (503, "upstream_unavailable", 503, "upstream_unavailable", True),
    "html": (502, "upstream_bad_response", 502, "upstream_bad_response", True),
    "truncated": (503, "upstream_unavailable", 503, "upstream_unavailable", True),
    "nodone": (502, "upstream_bad_response", 200, "upstream_unavailable", False),
    "hugehead": (502, "upstream_bad_response", 502, "upstream_bad_response", True),
    "status_400": (400, "context_length_exceeded", 400, "context_length_exceeded", False),
    "status_401": (502, "upstream_auth", 502, "upstream_auth", True),
    "status_404": (502, "upstream_model_not_found", 502, "upstream_model_not_found", True),
    "status_422": (400, "c", 400, "c", False),
    "status_429": (503, "server_is_overloaded", 503, "server_is_overloaded", True),
    "status_500": (503, "upstream_unavailable", 503, "upstream_unavailable", True),
    "status_503": (503, "server_is_overloaded", 503, "server_is_overloaded", True),
    "status_529": (503, "server_is_overloaded", 503, "server_is_overloaded", True),
}
# In one piece there is no first byte before the last, so these are answered elsewhere there.
MID = {"hangmid", "resetmid", "garbagemid", "badjsonmid", "errormid", "nodone"}


def test_every_fault_has_an_outcome() -> None:
    assert set(OUTCOMES) == {*FAULTS, "refuse"}
    text = DOCS.read_text()
    for fault in (*OUTCOMES, "drip", "wrongmodel"):
        assert f"`{fault}`" in text, fault


@pytest.mark.parametrize("fault", OUTCOMES)
def test_a_fault_of_the_only_target(gateway: ServerProcess, fault: str) -> None:
    whole_status, whole_code, stream_status, stream_code, _ = OUTCOMES[fault]
    whole = ask(gateway, fault)
    assert (whole.status_code, whole.json()["error"]["code"]) == (whole_status, whole_code)
    assert "secret" not in whole.text
    if fault in ("status_429", "status_503"):
        # Its pause of seven seconds is not over, so it is not asked again.
        assert whole.headers["retry-after"] == "7"
    stream = ask(gateway, fault, stream=True)
    assert stream.status_code == stream_status
    assert "secret" not in stream.text
    if stream_status == 200:
        assert stream.headers["content-type"].startswith("text/event-stream")
        found = events(stream)
        assert found[0]["choices"][0]["delta"]["content"] == WORDS[0]
        assert found[-1]["error"]["code"] == stream_code
        assert "[DONE]" not in stream.text
    else:
        assert stream.json()["error"]["code"] == stream_code


@pytest.mark.parametrize("fault", OUTCOMES)
@pytest.mark.parametrize("stream", [False, True])
def test_another_target_answers_before_the_first_byte(
    gateway: ServerProcess, fault: str, stream: bool
) -> None:
    elsewhere = OUTCOMES[fault][4] or (fault in MID and not stream)
    reply = ask(gateway, f"{fault}+ok", stream=stream)
    if not elsewhere:
        assert reply.headers["x-gateway-target"] == "bad/0"
        return
    assert reply.status_code == 200
    assert reply.headers["x-gateway-target"] == "good/0"
    # The second time a target that asked for a pause is left alone.
    assert reply.headers["x-gateway-route"] in ("retry:1, only", "only")
    if stream:
        text = "".join(e["choices"][0]["delta"].get("content", "") for e in events(reply))
    else:
        text = reply.json()["choices"][0]["message"]["content"]
    assert text == TEXT


def test_a_slow_drip_is_passed_on_whole(gateway: ServerProcess) -> None:
    reply = ask(gateway, "drip", stream=True)
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events(reply)) == TEXT
    assert reply.text.endswith("data: [DONE]\n\n")


def test_an_answer_under_another_name_is_passed_on_and_noted(
    gateway: ServerProcess, upstream: ChaosUpstream
) -> None:
    """Hosted APIs answer as ``gpt-4o-2024-11-20`` whoever asks for ``gpt-4o``."""
    reply = ask(gateway, "wrongmodel")
    asked = upstream.requests("wrongmodel")[-1]
    assert reply.content == whole_json(asked).replace(b'"wrongmodel"', b'"someone-else"')
    assert reply.headers["x-gateway-model"] == "wrongmodel"
    line = last_line(gateway, reply.headers["x-request-id"])
    assert (line["model"], line["upstream_model"]) == ("wrongmodel", "someone-else")
    stream = ask(gateway, "wrongmodel", stream=True)
    assert events(stream)[0]["model"] == "up"
    assert last_line(gateway, stream.headers["x-request-id"])["upstream_model"] == "up"


def test_a_kept_connection_that_was_closed_costs_nobody_an_answer(
    gateway: ServerProcess, upstream: ChaosUpstream
) -> None:
    assert [ask(gateway, "stale").status_code for _ in range(4)] == [200] * 4
    assert (
        gateway.metrics()[
            'gateway_target_attempts_total{model_name="stale",outcome="completed",target="openai/0"}'
        ]
        == 4
    )


def test_nothing_is_left_running(gateway: ServerProcess) -> None:
    samples = gateway.metrics()
    assert samples["gateway_requests_in_flight"] == 0
    outstanding = {k: v for k, v in samples.items() if "requests_outstanding" in k}
    assert outstanding
    assert set(outstanding.values()) == {0}
