"""Which engine serves, and the reason given."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from engine import registry
from engine.base import EngineStartError
from engine.config import EngineConfig
from engine.registry import build_engine, choose


@pytest.mark.parametrize("kind", ["onnx", "vllm", "fake"])
def test_an_explicit_kind_is_taken(kind: str) -> None:
    assert choose(EngineConfig(kind=kind)) == (kind, f"ENGINE={kind} asks for it")  # type: ignore[arg-type]


def test_auto_without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda _: None)
    assert choose(EngineConfig()) == ("onnx", "vllm is not installed")


def test_auto_with_a_vllm_for_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(registry.importlib.metadata, "version", lambda _: "0.32.0+cpu")
    kind, reason = choose(EngineConfig())
    assert kind == "onnx"
    assert "built for CPUs" in reason


@pytest.mark.parametrize(
    ("device", "kind"), [("cuda", "vllm"), ("rocm", "vllm"), ("cpu", "onnx"), ("", "onnx")]
)
def test_auto_follows_the_accelerator(
    monkeypatch: pytest.MonkeyPatch, device: str, kind: str
) -> None:
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(registry, "_built_for_cpu", lambda: False)
    platforms = SimpleNamespace(current_platform=SimpleNamespace(device_type=device))
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(platforms=platforms))
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    chosen, reason = choose(EngineConfig())
    assert chosen == kind
    assert (device if kind == "vllm" else "no supported accelerator") in reason


def test_vllm_asked_for_and_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EngineStartError, match=r"pip install 'llm-gateway\[vllm\]'"):
        build_engine(EngineConfig(kind="vllm"))


def test_each_kind_builds_its_own_engine() -> None:
    assert type(build_engine(EngineConfig(kind="fake"))).__name__ == "FakeEngine"
    assert type(build_engine(EngineConfig(kind="onnx"))).__name__ == "OnnxEngine"
