"""Names of LoRA adapters where vLLM does not run; with it they are in tests/vllm."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from server_process import MESSAGES, NewServer

from gateway.settings import SettingsError, load_settings


def test_adapters_are_names_of_their_own_model_only() -> None:
    settings = load_settings(
        _env_file=None,
        engine="vllm",
        model_name="bundled",
        served_model_name="big,large",
        lora_modules="a=/adapters/a,b=/adapters/b",
        models=json.dumps([{"model_name": "/models/other"}]),
        fallback_model="bundled",
    )
    first, other = (config for config, _ in settings.served_models())
    assert first.names == ("big", "large", "a", "b")
    assert other.names == ("other",)
    fallback = settings.fallback_config()
    assert fallback is not None
    assert fallback.names == ("tiny-chat", "bundled")
    assert fallback.vllm.lora_modules == {}


@pytest.mark.parametrize("names", ["big,a", "big,large,big"])
def test_a_name_stands_for_one_thing(names: str) -> None:
    with pytest.raises(SettingsError, match="has to be different") as caught:
        load_settings(
            _env_file=None, engine="vllm", served_model_name=names, lora_modules="a=/adapters/a"
        )
    assert "LORA_MODULES" in str(caught.value)


@pytest.mark.parametrize("engine", ["auto", "onnx"])
def test_without_vllm_there_are_no_adapters(
    shared_server: NewServer, tmp_path: Path, engine: str
) -> None:
    server = shared_server(ENGINE=engine, LORA_MODULES="loud=/adapters/loud")
    cards = httpx.get(f"{server.url}/v1/models").json()["data"]
    assert [card["id"] for card in cards] == ["tiny-chat", "bundled"]
    body = {"model": "loud", "messages": MESSAGES, "max_tokens": 2}
    for path, asked in {
        "/v1/chat/completions": body,
        "/v1/completions": {"model": "loud", "prompt": "Hi", "max_tokens": 2},
    }.items():
        reply = httpx.post(f"{server.url}{path}", json=asked, timeout=60)
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "model_not_found"
        assert ("ENGINE=vllm" in reply.json()["error"]["message"]) is (engine == "auto")
    assert httpx.post(
        f"{server.url}/v1/chat/completions", json=body | {"model": "bundled"}, timeout=60
    ).is_success
