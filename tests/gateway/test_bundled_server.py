"""The server as a newcomer starts it: the ONNX engine and the bundled model."""

import json
import signal
from pathlib import Path

import httpx
import openai
import pytest
from server_process import MESSAGES, NewServer, ServerProcess

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture
def bundled(shared_server: NewServer) -> ServerProcess:
    return shared_server(ENGINE="onnx", MAX_NUM_SEQS="1")


def test_streamed_and_whole_answers_agree(bundled: ServerProcess) -> None:
    client = openai.OpenAI(base_url=f"{bundled.url}/v1", api_key="x")
    whole = client.chat.completions.create(model="bundled", messages=MESSAGES, temperature=0)
    parts = client.chat.completions.create(
        model="bundled", messages=MESSAGES, temperature=0, stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in parts)
    assert text == whole.choices[0].message.content
    assert text.strip()
    assert "<|im_end|>" not in text


def test_logprobs_spell_the_answer(bundled: ServerProcess) -> None:
    client = openai.OpenAI(base_url=f"{bundled.url}/v1", api_key="x")
    answer = client.chat.completions.create(
        model="bundled", messages=MESSAGES, temperature=0, logprobs=True, top_logprobs=2
    )
    choice = answer.choices[0]
    assert choice.logprobs is not None
    spelled = bytes(b for entry in choice.logprobs.content or [] for b in entry.bytes or [])
    assert spelled.decode().startswith(choice.message.content or "?")


def test_tools_and_their_results_are_taken(bundled: ServerProcess) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
    }
    messages = [
        {"role": "user", "content": "How is the weather in Rome?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"weather": "sunny"}'},
    ]
    for sent in (messages[:1], messages):
        for stream in (False, True):
            reply = httpx.post(
                f"{bundled.url}/v1/chat/completions",
                json={"messages": sent, "tools": [TOOL], "temperature": 0, "stream": stream},
                timeout=60,
            )
            assert reply.status_code == 200, reply.text


def test_memory_stays_below_400_mb(bundled: ServerProcess) -> None:
    status = Path(f"/proc/{bundled.process.pid}/status").read_text()
    resident_kb = int(status.split("VmRSS:")[1].split()[0])
    assert resident_kb < 400 * 1024


def test_drain_ends_what_runs_too_long(new_server: NewServer) -> None:
    server = new_server(ENGINE="onnx", DRAIN_TIMEOUT_S="0").wait_ready()
    body = {"messages": MESSAGES, "stream": True, "ignore_eos": True, "max_tokens": 1900, "n": 8}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith("data: ")
        server.signal(signal.SIGTERM)
        last = [line for line in lines if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "server_draining"
    assert server.wait_exit() == 0
