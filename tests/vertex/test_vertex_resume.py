"""``apply`` and ``destroy`` broken off at every request, and killed while the cloud works on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vertex_emulator import Emulator
from vertex_specs import IMAGE, SMALLEST, Workbench, changed, two_deployments

from deploy.vertex import VertexError
from deploy.vertex.destroy import destroy

NEWER = changed(deployments__0__image=IMAGE.replace("1.0.0", "1.1.0"))


def from_nothing(bench: Workbench) -> Callable[[], Any]:
    bench.use(two_deployments())
    return bench.apply


def to_a_new_version(bench: Workbench) -> Callable[[], Any]:
    bench.apply()
    bench.use(NEWER)
    return bench.apply


def in_place(bench: Workbench) -> Callable[[], Any]:
    bench.apply()
    bench.use(
        changed(
            labels={"team": "chat"},
            endpoint={"inference_timeout_s": 30},
            deployments__0__scaling__max_replicas=7,
        )
    )
    return bench.apply


def to_nothing(bench: Workbench) -> Callable[[], Any]:
    bench.apply()
    return lambda: destroy(bench.cloud, bench.spec, bench.told.append)


SCENES: list[tuple[Callable[[Workbench], Callable[[], Any]], int]] = [
    (from_nothing, 6),
    (to_a_new_version, 4),
    (in_place, 3),
    (to_nothing, 3),
]


@pytest.mark.parametrize("after", [False, True], ids=["request_lost", "answer_lost"])
@pytest.mark.parametrize(("scene", "requests"), SCENES, ids=[scene.__name__ for scene, _ in SCENES])
def test_broken_off_at_every_request_it_ends_as_if_never_broken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scene: Callable[[Workbench], Callable[[], Any]],
    requests: int,
    after: bool,
) -> None:
    wanted, methods = whole_run(tmp_path, monkeypatch, scene)
    assert len(methods) == requests
    for position in range(requests):
        with Emulator(polls=1) as cloud:
            monkeypatch.setenv("VERTEX_API_ENDPOINT", cloud.url)
            with Workbench(cloud, tmp_path) as bench:
                act = scene(bench)
                begun = len(cloud.changes)
                cloud.cut_at, cloud.cut_after = begun + position, after
                with pytest.raises(VertexError, match="give the same command again"):
                    act()
                act()
                assert cloud.snapshot() == wanted, methods[position]
                carried_out = cloud.methods[begun:]
                if not after:
                    del carried_out[position]
                assert [m for m in carried_out if m == "deployModel"] == [
                    m for m in methods if m == "deployModel"
                ]


def whole_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scene: Callable[[Workbench], Callable[[], Any]],
) -> tuple[dict[str, Any], list[str]]:
    with Emulator(polls=1) as cloud:
        monkeypatch.setenv("VERTEX_API_ENDPOINT", cloud.url)
        with Workbench(cloud, tmp_path) as bench:
            act = scene(bench)
            begun = len(cloud.changes)
            act()
            return cloud.snapshot(), cloud.methods[begun:]


def test_killed_while_a_model_is_deployed(bench: Workbench) -> None:
    bench.emulator.halted.add("deployModel")
    command = [sys.executable, "-m", "gateway", "deploy", "vertex", "apply", str(bench.file), "-y"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        await_a_poll(bench.emulator, process)
    finally:
        process.kill()
        process.communicate()
    assert bench.endpoint.get("deployedModels") is None
    bench.emulator.halted.clear()
    assert bench.apply() == []
    assert bench.emulator.methods == ["uploadModel", "createEndpoint", "deployModel"]
    assert len(bench.endpoint["deployedModels"]) == 1
    assert any("begun earlier" in line for line in bench.told)


def await_a_poll(emulator: Emulator, process: subprocess.Popen[bytes]) -> None:
    """Wait until the process asks how far its deployment is."""
    deadline = time.monotonic() + 120
    while True:
        asked = [each.method for each in emulator.seen]
        if "deployModel" in asked and asked[-1] == "getOperation":
            return
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_operation_that_failed_is_begun_again(bench: Workbench) -> None:
    bench.emulator.fail["deployModel"] = [(8, "the zone has not enough resources")]
    with pytest.raises(VertexError, match="none of these machines free"):
        bench.apply()
    assert bench.apply() == [bench.told[-1].partition(",")[0] + ", 1 x NVIDIA_L4"]
    assert bench.emulator.methods.count("deployModel") == 2
    bench.use(SMALLEST)
    assert bench.apply() == []
