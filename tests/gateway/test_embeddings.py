"""POST /v1/embeddings on a real server: a fake chat model beside a small ONNX encoder."""

from __future__ import annotations

import base64
import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from server_process import MESSAGES, SENTENCE, NewServer, ServerProcess
from test_docs import documented, parameter_row

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from encoder_checkpoints import LONGEST, TEXTS, encode, word_piece
from table_encoder import averaged, write_table_encoder

from gateway.protocol.embedding_request import EMBEDDINGS

CLOSE = 1e-5
HIDDEN = 32
SIZES = {"vocabulary": 300, "dimension": HIDDEN}
ROUTE = "/v1/embeddings"


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table_encoder(
        tmp_path_factory.mktemp("encoder") / "table", word_piece(), **SIZES, longest=LONGEST
    )


@pytest.fixture(scope="session")
def settings(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A chat model, the encoder, and the same encoder trained to be cut."""
    cut = tmp_path_factory.mktemp("cut") / "cut"
    declared = {"matryoshka_dimensions": [8, 16]}
    write_table_encoder(cut, word_piece(), **SIZES, longest=LONGEST, **declared)
    small = {"engine": "onnx", "onnx_threads": 1}
    models = [
        {"model_name": str(encoder), "served_model_name": "embedder", **small},
        {"model_name": str(cut), "served_model_name": "shorter", **small},
    ]
    return {"SERVED_MODEL_NAME": "chatter", "MODELS": json.dumps(models)}


@pytest.fixture
def server(shared_server: NewServer, settings: dict[str, str]) -> ServerProcess:
    return shared_server(options={"text": SENTENCE}, **settings)


@pytest.fixture
def sdk(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def post(server: ServerProcess, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{ROUTE}", json=body, timeout=60)


def fault(answer: httpx.Response) -> tuple[int, str | None, str]:
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    return answer.status_code, error["param"], error["code"]


def farthest(got: Any, wanted: np.ndarray) -> float:
    found = np.array(got, np.float32)
    assert found.shape == wanted.shape
    return float(np.linalg.norm(found - wanted, axis=1).max())


@pytest.mark.parametrize("form", ["base64 by default", "float"])
def test_the_sdk_gets_the_models_vectors(form: str, sdk: openai.OpenAI) -> None:
    options: dict[str, Any] = {"encoding_format": "float"} if form == "float" else {}
    prompts = [encode(text) for text in TEXTS]
    answer = sdk.embeddings.create(model="embedder", input=TEXTS, **options)
    assert farthest([item.embedding for item in answer.data], averaged(prompts, **SIZES)) < CLOSE
    assert [item.index for item in answer.data] == list(range(len(TEXTS)))
    assert answer.model == "embedder"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, prompts))


def test_every_form_of_input_means_the_same(sdk: openai.OpenAI) -> None:
    ids = [encode(text) for text in TEXTS]
    forms: list[Any] = [TEXTS[1], [TEXTS[1]], ids[1], [ids[1]]]
    rows = [sdk.embeddings.create(model="embedder", input=form).data for form in forms]
    assert [len(row) for row in rows] == [1] * 4
    wanted = np.array([rows[0][0].embedding])
    for row in rows:
        assert farthest([row[0].embedding], wanted) < CLOSE


def test_base64_is_little_endian_float32(server: ServerProcess) -> None:
    body = {"model": "embedder", "input": TEXTS}
    plain = post(server, **body).json()["data"]
    coded = post(server, **body, encoding_format="base64").json()["data"]
    for one, other in zip(plain, coded, strict=True):
        row = np.frombuffer(base64.b64decode(other["embedding"]), "<f4")
        assert row.tolist() == [float(np.float32(value)) for value in one["embedding"]]


def test_the_first_embedding_model_is_the_default(server: ServerProcess) -> None:
    answer = post(server, input="hello", user="somebody")
    assert answer.status_code == 200
    assert answer.json()["model"] == "embedder"
    assert answer.headers["x-gateway-model"] == "embedder"


def test_dimensions(server: ServerProcess, sdk: openai.OpenAI) -> None:
    full = np.array(
        [item.embedding for item in sdk.embeddings.create(model="shorter", input=TEXTS).data]
    )
    cut = sdk.embeddings.create(model="shorter", input=TEXTS, dimensions=8)
    wanted = full[:, :8] / np.linalg.norm(full[:, :8], axis=1, keepdims=True)
    assert farthest([item.embedding for item in cut.data], wanted.astype(np.float32)) < CLOSE
    whole = post(server, model="embedder", input="hello", dimensions=HIDDEN)
    assert len(whole.json()["data"][0]["embedding"]) == HIDDEN
    refused = post(server, model="embedder", input="hello", dimensions=8)
    assert fault(refused) == (400, "dimensions", "unsupported_parameter")
    for wrong in (9, HIDDEN + 1):
        answer = post(server, model="shorter", input="hello", dimensions=wrong)
        assert fault(answer) == (400, "dimensions", "invalid_value")


LONG = " ".join(TEXTS * 3)


def test_a_long_text_is_refused_and_cut_on_request(server: ServerProcess) -> None:
    ids = encode(LONG)
    assert len(ids) > LONGEST
    refused = post(server, model="embedder", input=["hello", LONG])
    assert fault(refused) == (400, "input[1]", "context_length_exceeded")
    assert str(LONGEST) in refused.json()["error"]["message"]

    def vector(**body: Any) -> list[float]:
        answer = post(server, model="embedder", **body).json()
        vector: list[float] = answer["data"][0]["embedding"]
        return vector

    for limit, kept in ((-1, LONGEST), (20, 20)):
        first = vector(input=LONG, truncate_prompt_tokens=limit)
        assert farthest([first], np.array([vector(input=[*ids[: kept - 1], ids[-1]])])) < CLOSE
        last = vector(input=LONG, truncate_prompt_tokens=limit, truncation_side="left")
        assert farthest([last], np.array([vector(input=[ids[0], *ids[1 - kept :]])])) < CLOSE
    cut_ids = vector(input=ids, truncate_prompt_tokens=12)
    assert farthest([cut_ids], np.array([vector(input=ids[:12])])) < CLOSE
    assert vector(input="hello", truncate_prompt_tokens=-1) == vector(input="hello")
    bare = vector(input="hello", add_special_tokens=False)
    assert farthest([bare], np.array([vector(input=encode("hello")[1:-1])])) < CLOSE
    for wrong in (0, 1, 2, LONGEST + 1):
        answer = post(server, model="embedder", input=LONG, truncate_prompt_tokens=wrong)
        assert fault(answer) == (400, "truncate_prompt_tokens", "invalid_value")


def test_use_activation_false_leaves_vectors_as_they_are(
    server: ServerProcess,
) -> None:
    answer = post(server, model="embedder", input=TEXTS[2], use_activation=False).json()
    wanted = averaged([encode(TEXTS[2])], **SIZES, normalize=False)
    assert farthest([answer["data"][0]["embedding"]], wanted) < CLOSE * np.linalg.norm(wanted)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "input", "missing_required_parameter"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": ""}, "input", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": {"text": "x"}}, "input", "invalid_type"),
        ({"input": ["x", ""]}, "input[1]", "invalid_value"),
        ({"input": ["x", 1]}, "input[1]", "invalid_type"),
        ({"input": ["x", None]}, "input[1]", "invalid_type"),
        ({"input": [1, "x"]}, "input[1]", "invalid_type"),
        ({"input": [1, True]}, "input[1]", "invalid_type"),
        ({"input": [1, -1]}, "input[1]", "invalid_value"),
        ({"input": [[1], []]}, "input[1]", "invalid_value"),
        ({"input": [[[1]]]}, "input[0][0]", "invalid_type"),
        ({"input": [300]}, "input", "invalid_value"),
        ({"input": [[5], [2**31 - 1]]}, "input[1]", "invalid_value"),
        ({"input": "   "}, None, None),
        ({"input": "   ", "add_special_tokens": False}, "input", "invalid_value"),
        ({"input": ["x"] * 2049}, "input", "invalid_value"),
        ({"input": [[5] * (LONGEST + 1)]}, "input", "context_length_exceeded"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format", "invalid_value"),
        ({"input": "x", "dimensions": 0}, "dimensions", "invalid_value"),
        ({"input": "x", "dimensions": "8"}, "dimensions", "invalid_type"),
        ({"input": "x", "messages": []}, "messages", "unsupported_parameter"),
        ({"input": "x", "truncation_side": "middle"}, "truncation_side", "invalid_value"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)
def test_bad_requests(
    server: ServerProcess, body: dict[str, Any], param: str | None, code: str | None
) -> None:
    answer = post(server, model="embedder", **body)
    if code is None:
        assert answer.status_code == 200
    else:
        assert fault(answer) == (400, param, code)


def test_a_request_has_a_bound_on_all_tokens(server: ServerProcess) -> None:
    assert 2048 * LONGEST < 300_000
    many = " ".join(TEXTS)[:400]
    answer = post(server, model="embedder", input=[many] * 2048, truncate_prompt_tokens=-1)
    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 2048
    # Ids are counted before the model's own bound on each of them cuts in.
    answer = post(server, model="embedder", input=[[5] * LONGEST] * 2048, dimensions=HIDDEN)
    assert answer.json()["usage"]["prompt_tokens"] == 2048 * LONGEST


def test_a_long_text_does_not_stop_the_server(server: ServerProcess) -> None:
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(post(server, model="embedder", input="the quick brown fox " * 15_000))

    thread = threading.Thread(target=ask)
    probes = 0
    with httpx.Client(timeout=60) as client:
        client.get(f"{server.url}/health/live")
        thread.start()
        while thread.is_alive():
            assert client.get(f"{server.url}/health/live").status_code == 200
            probes += 1
    thread.join()
    assert fault(answers[0]) == (400, "input", "context_length_exceeded")
    # With the GIL held there would be one or two.
    assert probes > 5


def test_the_wrong_kind_of_model(server: ServerProcess, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.embeddings.create(model="chatter", input="hello")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "/v1/chat/completions" in str(caught.value)
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="embedder", messages=MESSAGES)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "/v1/embeddings" in str(caught.value)
    with pytest.raises(openai.NotFoundError):
        sdk.embeddings.create(model="nobody", input="hello")
    answer = sdk.chat.completions.create(model="chatter", messages=MESSAGES)
    assert answer.choices[0].message.content == SENTENCE


def test_the_models_are_listed_and_described(server: ServerProcess, sdk: openai.OpenAI) -> None:
    cards = {card["id"]: card for card in httpx.get(f"{server.url}/v1/models").json()["data"]}
    assert {model.id for model in sdk.models.list()} == set(cards)
    assert cards["chatter"]["task"] == "generation"
    assert cards["embedder"]["task"] == cards["shorter"]["task"] == "embeddings"
    document = httpx.get(f"{server.url}/openapi.json", timeout=60).json()
    assert "post" in document["paths"][ROUTE]
    assert document["components"]["schemas"]["EmbeddingRequest"]["required"] == ["input"]
    assert httpx.get(f"{server.url}{ROUTE}").status_code == 405


def test_every_parameter_is_documented() -> None:
    rows = {parameter_row(parameter) for parameter in EMBEDDINGS.values()}
    assert documented("embeddings.md", "| `") >= rows, "\n" + "\n".join(rows)


def test_the_account(server: ServerProcess) -> None:
    def tokens() -> float:
        text = httpx.get(f"{server.url}/metrics", timeout=60).text
        lines = [line for line in text.splitlines() if 'model_name="embedder"' in line]
        return float(
            next(x for x in lines if x.startswith("vllm:prompt_tokens_total")).rpartition(" ")[2]
        )

    post(server, model="embedder", input="hello")
    before = tokens()
    used = post(server, model="embedder", input=TEXTS).json()["usage"]["prompt_tokens"]
    assert tokens() == before + used
    line = [line for line in server.log_lines() if line.get("route") == ROUTE][-1]
    assert (line["model"], line["inputs"], line["prompt_tokens"]) == ("embedder", 5, used)
    assert "quick brown" not in server.err.read_text()


def test_many_clients_at_once_get_their_own_vectors(sdk: openai.OpenAI) -> None:
    wanted = averaged([encode(text) for text in TEXTS], **SIZES)
    wrong: list[float] = []

    def ask(place: int) -> None:
        for step in range(6):
            at = (place + step) % len(TEXTS)
            data = sdk.embeddings.create(model="embedder", input=TEXTS[at]).data
            wrong.append(farthest([data[0].embedding], wanted[at : at + 1]))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 72
    assert max(wrong) < CLOSE


def test_a_client_that_leaves_frees_the_engine(server: ServerProcess) -> None:
    body = json.dumps({"model": "embedder", "input": [[5] * LONGEST] * 2048}).encode()
    head = f"POST {ROUTE} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def outcomes() -> list[str]:
        lines = [line for line in server.log_lines() if line.get("route") == ROUTE]
        return [line["outcome"] for line in lines if line.get("inputs") in (None, 2048)]

    known = len(outcomes())
    for pause_s in (0.0, 0.02, 0.1, 0.2):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(request)
            time.sleep(pause_s)

    server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 0, "them to end")
    server.wait_for(lambda: len(outcomes()) >= known + 4, "their log lines")
    assert "cancelled" in outcomes()[-4:]
    assert set(outcomes()[-4:]) <= {"cancelled", "completed"}
    lines = httpx.get(f"{server.url}/metrics", timeout=60).text.splitlines()
    running = [line for line in lines if line.startswith("vllm:num_requests_running")]
    assert len(running) == 3
    assert all(line.endswith(" 0.0") for line in running)
    assert post(server, model="embedder", input="hello").status_code == 200
