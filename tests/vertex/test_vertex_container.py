"""What ``apply`` sends starts: the container's environment and routes, in a real gateway."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from prober_container import ContainerProber, start_container
from server_process import MESSAGES
from vertex_specs import changed

from deploy.vertex.requests import container
from deploy.vertex.spec import Spec


@pytest.mark.parametrize("mode", ["invoke", "predict"])
def test_the_container_starts_as_it_is_sent(tmp_path: Path, mode: str) -> None:
    own = {"MODEL_NAME": "bundled", "ENGINE": "onnx", "ONNX_THREADS": 1, "STRICT_PARAMETERS": True}
    spec = Spec.model_validate(
        changed(
            mode=mode,
            deployments__0__environment=own,
            deployments__0__machine={"type": "n2-standard-4"},
        )
    )
    sent = container(spec, spec.deployments[0])
    environment = {each.name: each.value for each in sent.env}
    routes = {"predict_route": sent.predict_route} if sent.predict_route else {}
    assert environment.pop("HOST") == "0.0.0.0"
    server = start_container(
        tmp_path / "container", health_route=sent.health_route, **routes, **environment
    )
    try:
        prober = ContainerProber(server, sent.health_probe.http_get.path)
        prober.first_connection()
        prober.wait_routed()
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
            for path in (sent.startup_probe.http_get.path, sent.health_route):
                assert client.get(path).status_code == 200
            chat = {"messages": MESSAGES, "max_tokens": 2}
            if mode == "invoke":
                answer = client.post("/v1/chat/completions", json=chat)
                assert answer.json()["choices"]
            else:
                answer = client.post(sent.predict_route, json={"instances": [chat]})
                assert answer.json()["predictions"][0]["choices"]
            assert answer.status_code == 200
            scraped = client.get("/metrics").text
        for name in ("vllm:num_requests_waiting", "vllm:gpu_cache_usage_perc"):
            assert f"\n{name}{{" in scraped
    finally:
        server.kill()
