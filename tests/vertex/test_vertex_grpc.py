"""The same over gRPC, as in production: requests, operations, refusals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from vertex_emulator import Emulator
from vertex_grpc_door import GrpcCloud, GrpcDoor
from vertex_specs import IMAGE, Workbench, changed

from deploy.vertex import VertexError
from deploy.vertex.destroy import destroy


@pytest.fixture
def over_grpc(emulator: Emulator, bench: Workbench) -> Iterator[Workbench]:
    with (
        GrpcDoor(emulator) as door,
        GrpcCloud("my-project", "us-central1", door.address, False, 0.01) as cloud,
    ):
        bench.cloud = cloud
        yield bench


def test_apply_change_and_destroy(over_grpc: Workbench) -> None:
    bench = over_grpc
    assert len(bench.apply()) == 3
    assert bench.apply() == []
    made = bench.emulator.snapshot()
    bench.use(
        changed(
            labels={"team": "chat"},
            endpoint={"inference_timeout_s": 30},
            deployments__0__scaling__max_replicas=9,
            deployments__0__image=IMAGE.replace("1.0.0", "1.1.0"),
        )
    )
    bench.apply()
    assert bench.apply() == []
    assert bench.emulator.snapshot() != made
    destroy(bench.cloud, bench.spec, bench.told.append)
    assert bench.emulator.snapshot() == {"models": {}, "endpoints": {}}


def test_scale_to_zero(over_grpc: Workbench) -> None:
    scaling = {"min_replicas": 0, "max_replicas": 2, "scale_to_zero": {}}
    over_grpc.use(changed(deployments__0__scaling=scaling))
    over_grpc.apply()
    assert over_grpc.apply() == []


def test_refusals_and_what_is_under_way(over_grpc: Workbench) -> None:
    bench = over_grpc
    bench.emulator.quota["NVIDIA_L4"] = 1
    with pytest.raises(VertexError, match="quota is used up"):
        bench.apply()
    bench.emulator.quota.clear()
    bench.emulator.fail["deployModel"] = [(8, "not enough resources"), (14, "try again")]
    for said in ("none of these machines free", "give the same command again"):
        with pytest.raises(VertexError, match=said):
            bench.apply()
    bench.emulator.refuse["getOperation"] = [(503, "unavailable")] * 10
    with pytest.raises(VertexError, match="could not do it"):
        bench.apply()
    bench.emulator.refuse["getOperation"] = [(503, "unavailable")] * 9
    assert bench.apply() == []
    assert any("begun earlier" in line for line in bench.told)


def test_nobody_answers(bench: Workbench) -> None:
    with GrpcCloud("my-project", "us-central1", "127.0.0.1:1", False, 0.01) as cloud:
        bench.cloud = cloud
        with pytest.raises(
            VertexError, match=r"reading what exists: .*give the same command again"
        ):
            bench.plan()
