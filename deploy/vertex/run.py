"""Carry steps out: send, wait, look again. Broken off anywhere, it goes on from there."""

from __future__ import annotations

import time
from typing import Any

from deploy.vertex import VertexError
from deploy.vertex.client import Cloud
from deploy.vertex.errors import AGAIN, explained
from deploy.vertex.requests import model_name
from deploy.vertex.spec import Spec
from deploy.vertex.state import CALL_S, Progress, State, read_state, wait, wait_for_earlier
from deploy.vertex.steps import Step, next_step

# How often what exists is read again when it does not show yet what has just been done.
_LOOKS = 30


def apply(cloud: Cloud, spec: Spec, progress: Progress) -> list[Step]:
    """Make the cloud as the spec wants it; returns the steps that it took. Raises VertexError."""
    names = {model_name(spec, each) for each in spec.deployments}
    wait_for_earlier(cloud, spec, names, progress)
    taken: list[Step] = []
    while True:
        step = next_step(spec, _state_after(cloud, spec, taken))
        if step is None:
            return taken
        progress(step.title)
        run_step(cloud, step, progress)
        taken.append(step)


def run_step(cloud: Cloud, step: Step, progress: Progress) -> None:
    """Send one request and wait until what it began is done. Raises VertexError."""
    from google.api_core.exceptions import AlreadyExists

    beta = step.version == "v1beta1"
    client = cloud.models() if step.of_models else cloud.endpoints(beta)
    with explained(step.title):
        try:
            answer = getattr(client, step.method)(request=step.request, timeout=CALL_S)
        except AlreadyExists:
            # An earlier run began it, and its operation was not listed yet.
            if step.makes is None:
                raise
            _wait_until_there(cloud, client, step, progress)
            return
    operation = getattr(answer, "operation", None)
    if operation is not None:
        wait(cloud, client, operation.name, step.title, progress)


def _wait_until_there(cloud: Cloud, client: Any, step: Step, progress: Progress) -> None:
    from google.api_core.exceptions import NotFound

    get = client.get_model if step.of_models else client.get_endpoint
    deadline = time.monotonic() + max(600.0, 60 * cloud.poll_s)
    while True:
        with explained(step.title):
            try:
                get(name=step.makes, timeout=CALL_S)
            except NotFound:
                if time.monotonic() > deadline:
                    raise VertexError(
                        f"{step.title}: {step.makes} is said to exist and is not found: {AGAIN}"
                    ) from None
            else:
                return
        progress(f"{step.title}: begun earlier, waiting")
        time.sleep(cloud.poll_s)


def _state_after(cloud: Cloud, spec: Spec, taken: list[Step]) -> State:
    for _ in range(_LOOKS):
        state = read_state(cloud, spec)
        if not taken or next_step(spec, state) != taken[-1]:
            return state
        time.sleep(cloud.poll_s)
    raise VertexError(f"{taken[-1].title}: done, and Vertex AI does not show it: {AGAIN}")
