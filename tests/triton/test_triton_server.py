"""What the product writes, in a real tritonserver on the CPU."""

from __future__ import annotations

import asyncio
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from triton_models import HIDDEN, LONGEST, TABLE, WEIGHTS

from deploy.triton.server import Server
from engine.base import GenerateRequest, SamplingParams
from engine.config import EngineConfig
from engine.models.find import BundledModel
from engine.onnx.engine import OnnxEngine
from engine.onnx_encoder.layout import EncoderModel
from engine.onnx_encoder.session import EncoderSession, finish
from gateway.chat.template import ChatTemplate

QUESTION = "What is the capital of France?"


def post(server: Server, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{server.url}/v2/models/{path}", json=body, timeout=120)


def infer(server: Server, model: str, feeds: dict[str, tuple[str, Any]]) -> dict[str, np.ndarray]:
    inputs = [
        {"name": name, "datatype": kind, "shape": np.shape(data), "data": np.array(data).tolist()}
        for name, (kind, data) in feeds.items()
    ]
    response = post(server, f"{model}/infer", {"inputs": inputs})
    assert response.status_code == 200, response.text
    return {
        out["name"]: np.array(out["data"]).reshape(out["shape"])
        for out in response.json()["outputs"]
    }


def statistics(server: Server, model: str) -> dict[str, Any]:
    found = httpx.get(f"{server.url}/v2/models/{model}/stats", timeout=60).json()
    return dict(found["model_stats"][0])


def test_a_plain_graph_computes_what_onnxruntime_does(server: Server) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    got = infer(
        server,
        "net",
        {
            "x": ("FP32", x),
            "scale": ("FP32", [[2.0], [3.0]]),
            "label": ("BYTES", [["one"], ["zwei ä"]]),
        },
    )
    wanted = x @ WEIGHTS * np.array([[2.0], [3.0]])
    np.testing.assert_allclose(got["y"], wanted, rtol=1e-5)
    np.testing.assert_allclose(got["total"], wanted.sum(axis=1)[:, None], rtol=1e-5)
    assert got["named"].tolist() == [["one"], ["zwei ä"]]


def test_requests_are_batched(server: Server) -> None:
    before = statistics(server, "net")

    def ask(number: int) -> float:
        feeds = {
            "x": ("FP32", [[float(number), 0.0, 0.0, 0.0]]),
            "scale": ("FP32", [[1.0]]),
            "label": ("BYTES", [[str(number)]]),
        }
        got = infer(server, "net", feeds)
        assert got["named"].tolist() == [[str(number)]]
        return float(got["y"][0, 0])

    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(ask, range(16)))
    np.testing.assert_allclose(got, np.arange(16) * WEIGHTS[0, 0], rtol=1e-5)
    after = statistics(server, "net")
    assert after["inference_count"] - before["inference_count"] == 16
    assert after["execution_count"] - before["execution_count"] < 16
    assert any(entry["batch_size"] > 1 for entry in after["batch_stats"])


def test_a_graph_without_a_batch_dimension(server: Server) -> None:
    assert np.allclose(infer(server, "lookup", {"id": ("INT64", [3])})["row"], TABLE[3])
    inputs = [{"name": "id", "datatype": "INT64", "shape": [1], "data": [99]}]
    refused = post(server, "lookup/infer", {"inputs": inputs})
    assert refused.status_code == 500
    assert "out of" in refused.json()["error"]


def test_texts_become_the_engines_own_vectors(server: Server, encoder: Path) -> None:
    texts = ["a model server joins requests into one batch", "one model", "requests " * 17]
    got = infer(server, "embed", {"text_input": ("BYTES", [[text] for text in texts])})
    model = EncoderModel.read(encoder)
    prompts = [np.array(model.tokenizer.encode(text).ids, np.int32) for text in texts]
    session = EncoderSession(model, threads=1)
    wanted = finish(session.run(prompts), None, normalize=model.space.normalized)
    assert got["embedding"].shape == (3, HIDDEN)
    np.testing.assert_allclose(got["embedding"], wanted, rtol=1e-5, atol=1e-6)


def test_a_text_that_is_too_long_is_refused(server: Server) -> None:
    inputs = [{"name": "text_input", "datatype": "BYTES", "shape": [1, 1], "data": ["one " * 60]}]
    refused = post(server, "embed/infer", {"inputs": inputs})
    assert refused.status_code >= 400
    assert f"60 tokens and the model takes {LONGEST}" in refused.json()["error"]


async def engine_text(question: str, tokens: int) -> str:
    """What the engine of the gateway answers greedily."""
    engine = OnnxEngine(EngineConfig(max_num_seqs=1, threads=1), BundledModel().shipped)
    await engine.start()
    try:
        info = engine.info
        template = ChatTemplate(info.chat_template or "", info.template_globals)
        prompt = template.render(
            [{"role": "user", "content": question}],
            tools=[],
            add_generation_prompt=True,
            continue_final_message=False,
            variables={},
        )
        ids = info.tokenizer.encode(prompt, add_special_tokens=False).ids
        sampling = SamplingParams(temperature=0, max_tokens=tokens)
        request = GenerateRequest("one", ids, sampling)
        return "".join([delta.text async for delta in engine.generate(request)])
    finally:
        await engine.stop(0)


def test_a_question_is_answered_as_by_the_engine(server: Server) -> None:
    asked = {"text_input": QUESTION, "max_tokens": 40}
    answer = post(server, "chat/generate", asked).json()["text_output"]
    assert "Paris" in answer
    assert answer == asyncio.run(engine_text(QUESTION, 40))


def test_an_answer_is_streamed(server: Server) -> None:
    whole = post(server, "chat/generate", {"text_input": QUESTION}).json()["text_output"]
    body = {"text_input": QUESTION, "stream": True}
    response = post(server, "chat/generate_stream", body)
    events = [line for line in response.text.splitlines() if line.startswith("data: ")]
    pieces = [json.loads(line.removeprefix("data: "))["text_output"] for line in events]
    assert len(pieces) > 3
    assert "".join(pieces) == whole


def test_answers_of_one_batch_are_those_of_each_alone(server: Server) -> None:
    bodies = [
        {"text_input": f"{QUESTION} {'Please. ' * n}", "max_tokens": 20 + n, "ignore_eos": True}
        for n in range(5)
    ]

    def ask(body: dict[str, Any]) -> str:
        return str(post(server, "chat/generate", body).json()["text_output"])

    alone = [ask(body) for body in bodies]
    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(ask, bodies)) == alone


def test_a_seed_repeats_a_draw(server: Server) -> None:
    options = {"temperature": 1.5, "top_p": 0.95, "top_k": 50, "max_tokens": 24, "ignore_eos": True}

    def ask(seed: int) -> str:
        body = {"text_input": QUESTION, "sampling_parameters": json.dumps(options | {"seed": seed})}
        return str(post(server, "chat/generate", body).json()["text_output"])

    assert ask(1) == ask(1)
    assert len({ask(seed) for seed in range(4)}) > 1


def test_wrong_options_are_named(server: Server) -> None:
    for options, wanted in (
        ({"max_tokns": 3}, "there is no option 'max_tokns'"),
        ({"max_tokens": 0}, "max_tokens has to lie between"),
        ({"temperature": "hot"}, "temperature has to be a number"),
        ({"sampling_parameters": "{"}, "sampling_parameters is not JSON"),
        ({"text_input": "word " * 3000}, "tokens and the model holds 2048"),
    ):
        refused = post(server, "chat/generate", {"text_input": "Hello"} | options)
        assert refused.status_code >= 400
        assert wanted in refused.json()["error"], options
    assert post(server, "chat/generate", {"text_input": QUESTION}).status_code == 200


def test_the_higher_priority_is_served_first(server: Server, triton_python: Path) -> None:
    client = Path(__file__).with_name("stream_client.py")
    ports = server.ports
    metrics = f"http://127.0.0.1:{ports.metrics}/metrics"
    done = subprocess.run(
        [str(triton_python), "-I", str(client), f"127.0.0.1:{ports.grpc}", metrics],
        capture_output=True,
        text=True,
        timeout=300,
    )
    ended = done.stdout.split()
    assert sorted(ended) == ["first", "high", "low", "second", "third"], done.stdout + done.stderr
    assert ended.index("high") < ended.index("low")


def test_metrics_count_what_was_served(server: Server) -> None:
    assert post(server, "chat/generate", {"text_input": QUESTION}).status_code == 200
    url = f"http://127.0.0.1:{server.ports.metrics}/metrics"
    lines = httpx.get(url, timeout=60).text.splitlines()
    counts = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    for model in ("chat", "chat_tokenizer", "chat_generate", "chat_detokenizer"):
        labels = f'{{model="{model}",version="1"}}'
        assert int(counts[f"nv_inference_request_success{labels}"]) > 0
        assert f"nv_inference_queue_duration_us{labels}" in counts
