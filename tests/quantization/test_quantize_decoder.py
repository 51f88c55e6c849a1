"""``model quantize`` on prepared decoders: what comes out is served, or refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import openai
import pytest
from onnx_calls import ask, prompt
from quantize_command import Command
from server_process import ServerProcess

from engine.base import EngineStartError
from engine.config import EngineConfig
from engine.models.convert import prepare
from engine.models.kernel import session_entries
from engine.onnx.engine import OnnxEngine
from engine.onnx.prepared import Manifest
from engine.quantization.calibration import decoder_feeds
from engine.quantization.sources import read_manifest


@pytest.fixture(scope="module")
def made(decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The decoder quantised by a method, once."""
    from engine.quantization.methods import quantize
    from engine.quantization.report import Options

    root = tmp_path_factory.mktemp("made")

    def get(method: str) -> Path:
        if not (root / method).exists():
            quantize(str(decoder), root / method, Options(method=method, samples=6))
        return root / method

    return get


def last_logits(folder: Path, tokens: list[int]) -> np.ndarray:
    options = ort.SessionOptions()
    for key, value in session_entries().items():
        options.add_session_config_entry(key, value)
    session = ort.InferenceSession(
        folder / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    return session.run(["logits"], decoder_feeds(read_manifest(folder), tokens))[0][-1]


@pytest.mark.parametrize("method", ["int8", "int8_block", "int4"])
async def test_weights_only_and_per_token_variants_are_served(
    method: str, made: Callable[[str], Path], decoder: Path
) -> None:
    folder = made(method)
    assert Manifest.read(folder).precision == method
    assert prepare(str(folder), "auto", EngineConfig(), lambda *_: None) == folder
    for name in ("tokenizer.json",):
        assert (folder / name).read_bytes() == (decoder / name).read_bytes()
    engine = OnnxEngine(EngineConfig(kind="onnx", prefix_cache_tokens=0), folder=folder)
    await engine.start()
    try:
        answer = await ask(engine, prompt(20), max_tokens=5)
    finally:
        await engine.stop(0)
    assert answer.token_ids[0] == int(last_logits(folder, prompt(20)).argmax())


@pytest.mark.parametrize(
    ("method", "reason"), [("dynamic", "one activation scale"), ("static", "cuts activations off")]
)
async def test_what_would_answer_otherwise_in_company_is_refused(
    method: str, reason: str, made: Callable[[str], Path]
) -> None:
    folder = made(method)
    report = json.loads((folder / "quantization.json").read_text())
    assert report["served"].startswith("not served here: ")
    assert reason in report["served"]
    assert report["difference"]["snr_db"] > 5
    for refused in (
        lambda: prepare(str(folder), "auto", EngineConfig(), lambda *_: None),
        lambda: Manifest.read(folder),
    ):
        with pytest.raises(EngineStartError, match=f"is not served: .*{reason}"):
            refused()
    engine = OnnxEngine(EngineConfig(kind="onnx"), folder=folder)
    with pytest.raises(EngineStartError, match="is not served"):
        await engine.start()


def test_a_decoder_is_compared_on_the_prompts_that_are_given(
    model_command: Command, decoder: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    lines = ["plain text", {"prompt": "asked"}, {"text": "said"}]
    prompts.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    report = model_command(
        *("quantize", decoder, "--method", "int8", "--out", tmp_path / "made"),
        *("--calibration", prompts, "--json"),
    ).json
    assert report["difference"]["inputs"] == "3 prompts of prompts.jsonl"
    assert 0 < report["difference"]["same_choice"] <= 1
    assert report["served"] == f"llm-gateway serve --engine onnx --model {tmp_path / 'made'}"


def test_from_the_bundled_model_to_an_sdk(
    model_command: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    server_of: Callable[[Path], str],
) -> None:
    monkeypatch.delenv("MODEL_CACHE_DIR")  # the fp32 copy is made once for all tests that need it
    out = tmp_path / "made"
    done = model_command("quantize", "bundled", "--method", "int8_block", "--out", out, "--json")
    report = done.json
    assert report["source"] == "bundled"
    assert report["difference"]["same_choice"] > 0.95
    with openai.OpenAI(base_url=server_of(out), api_key="none") as client:
        answer = client.chat.completions.create(
            model=client.models.list().data[0].id,
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            temperature=0,
        )
    assert "Paris" in str(answer.choices[0].message.content)


@pytest.fixture
def server_of(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """A server of a prepared folder; its base URL."""
    started: list[ServerProcess] = []

    def start(folder: Path) -> str:
        settings = {"ENGINE": "onnx", "MODEL_NAME": str(folder)}
        server = ServerProcess(tmp_path, **settings).wait_ready()
        started.append(server)
        return f"http://127.0.0.1:{server.port}/v1"

    yield start
    for server in started:
        server.kill()


def test_bad_prompts_and_quantised_sources_are_named(
    model_command: Command, decoder: Path, made: Callable[[str], Path], tmp_path: Path
) -> None:
    def refusal(source: Path, text: str | None = None) -> str:
        more: list[object] = []
        if text is not None:
            (tmp_path / "prompts.jsonl").write_text(text)
            more = ["--calibration", tmp_path / "prompts.jsonl"]
        out = tmp_path / "made"
        said = model_command("quantize", source, "--method", "static", "--out", out, *more).refusal
        assert not out.exists()
        return said

    assert "line 2, is not JSON" in refusal(decoder, '"fine"\n{oops\n')
    assert "line 1, holds no prompt" in refusal(decoder, '{"question": "?"}\n')
    assert "holds no prompts" in refusal(decoder, "\n")
    assert "is quantised already (int8)" in refusal(made("int8"))
    assert "is quantised already (int8_dynamic)" in refusal(made("dynamic"))
