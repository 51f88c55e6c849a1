"""vLLM's /tokenize and /detokenize on a real server with the bundled model."""

import concurrent.futures
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_process import MESSAGES, PATIENCE_S, NewServer, ServerProcess
from tokenizers import Tokenizer

import engine.models.bundled

TEXTS = ["", "Hello there", "Grüße 🦊\n\tund <|im_start|>user", "a" * 50_000, "日本語 " * 2000]


@pytest.fixture(scope="module")
def bundled(shared_server: NewServer) -> ServerProcess:
    return shared_server(ENGINE="onnx", MAX_NUM_SEQS="4")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    folder = Path(engine.models.bundled.__file__).parent / "tiny-chat"
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def post(server: ServerProcess, path: str, body: Any, status: int = 200) -> Any:
    reply = httpx.post(f"{server.url}{path}", json=body, timeout=PATIENCE_S)
    assert reply.status_code == status, reply.text
    return reply.json()


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_there_and_back(bundled: ServerProcess, tokenizer: Tokenizer, text: str) -> None:
    answer = post(bundled, "/tokenize", {"prompt": text, "return_token_strs": True})
    expected = tokenizer.encode(text)
    assert answer["tokens"] == expected.ids
    assert answer["token_strs"] == expected.tokens
    assert answer["count"] == len(expected.ids)
    assert answer["max_model_len"] == 2048
    assert post(bundled, "/detokenize", {"tokens": expected.ids}) == {"prompt": text}


def test_messages_count_what_a_chat_costs(bundled: ServerProcess, tokenizer: Tokenizer) -> None:
    answer = post(bundled, "/tokenize", {"messages": MESSAGES, "model": "bundled"})
    body = {"messages": MESSAGES, "max_tokens": 1, "return_token_ids": True}
    chat = post(bundled, "/v1/chat/completions", body)
    assert answer["tokens"] == chat["prompt_token_ids"]
    assert answer["token_strs"] is None
    text = post(bundled, "/detokenize", {"tokens": answer["tokens"]})["prompt"]
    assert MESSAGES[0]["content"] in text
    assert text.endswith("<|im_start|>assistant\n")
    closed = post(bundled, "/tokenize", {"messages": MESSAGES, "add_generation_prompt": False})
    assert 0 < closed["count"] < answer["count"]
    tool = {"type": "function", "function": {"name": "get_weather", "description": "Weather"}}
    with_tool = post(bundled, "/tokenize", {"messages": MESSAGES, "tools": [tool]})
    assert with_tool["count"] > answer["count"]
    long = post(bundled, "/tokenize", {"messages": [{"role": "user", "content": "word " * 9000}]})
    assert long["count"] > long["max_model_len"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": 3}, "prompt"),
        ("/tokenize", {"prompt": ["a"]}, "prompt"),
        ("/tokenize", {"prompt": "x" * 8_000_001}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": MESSAGES}, "messages"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ("/tokenize", {"prompt": "x", "add_special_tokens": 1}, "add_special_tokens"),
        ("/tokenize", {"messages": MESSAGES, "chat_template": "{{ 1 }}"}, "chat_template"),
        (
            "/tokenize",
            {"messages": MESSAGES, "continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message",
        ),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
        ("/detokenize", {"tokens": [1, "x"]}, "tokens[1]"),
        ("/detokenize", {"tokens": [1, True]}, "tokens[1]"),
        ("/detokenize", {"tokens": [1, -1]}, "tokens[1]"),
        ("/detokenize", {"tokens": [1, 10**20]}, "tokens[1]"),
        ("/detokenize", {"tokens": [1, 5, 999_999]}, "tokens[2]"),
    ],
)
def test_bad_input_names_the_field(
    bundled: ServerProcess, path: str, body: dict[str, Any], param: str
) -> None:
    assert post(bundled, path, body, 400)["error"]["param"] == param


def test_edges(bundled: ServerProcess) -> None:
    assert post(bundled, "/detokenize", {"tokens": []}) == {"prompt": ""}
    assert post(bundled, "/tokenize", {"prompt": "x", "model": "no"}, 404)["error"]["code"] == (
        "model_not_found"
    )
    assert httpx.get(f"{bundled.url}/tokenize").status_code == 405


def test_a_key_is_needed(shared_server: NewServer) -> None:
    key = "k" * 20
    server = shared_server(options={"text": "x"}, API_KEYS=key)
    for path, body in (("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": [1]})):
        assert httpx.post(f"{server.url}{path}", json=body).status_code == 401
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.post(f"{server.url}{path}", json=body, headers=headers).status_code == 200


def test_long_texts_hold_nobody_up(bundled: ServerProcess) -> None:
    """Probes are answered all the while: tokenising holds neither the loop nor the GIL."""
    body = {"prompt": "The quick brown fox jumps. " * 24_000}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        big = [pool.submit(post, bundled, "/tokenize", body) for _ in range(2)]
        probes = 0
        while not all(job.done() for job in big):
            assert httpx.get(f"{bundled.url}/health/live", timeout=PATIENCE_S).status_code == 200
            probes += 1
        counts = {job.result()["count"] for job in big}
    assert len(counts) == 1
    assert probes > 8
