"""serve.sbatch in a real Slurm: jobs are found, stream, and drain whoever ends them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import httpx
import pytest
from slurm_cluster import CPUS, PATIENCE_S, Slurm

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "deploy" / "slurm" / "serve.sbatch")
ROUTER = ROOT / "deploy" / "slurm" / "router.yaml"
KEY = "key-of-the-slurm-tests"
JOB_CPUS = 4  # as the script asks for
TOKENS = 150
# Three seconds, in which what a test does to its job happens.
SLOW_ANSWERS = json.dumps({"itl_s": 0.02, "output_tokens": TOKENS})


@dataclass
class Place:
    """Where the jobs of one test leave their addresses."""

    slurm: Slurm
    folder: Path

    def submit(self, *options: str, **environment: str) -> str:
        """The id of a job that serves the fake model unless CONFIG_FILE says otherwise."""
        keys = self.folder / "keys"
        keys.write_text(f"{KEY}\n")
        keys.chmod(0o600)
        own = {
            "GATEWAY_PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            "KEY_FILE": str(keys),
            "SERVERS_DIR": str(self.folder / "servers"),
            "HOST": "127.0.0.1",
            "ADVERTISE_HOST": "127.0.0.1",
            "TMPDIR": str(self.folder),
        }
        if "CONFIG_FILE" not in environment:
            own |= {"SERVED_MODEL_NAME": "chat", "ENGINE": "fake", "ENGINE_OPTIONS": SLOW_ANSWERS}
        return self.slurm.submit("--mem=100", *options, SCRIPT, **own | environment)

    def urls(self) -> list[str]:
        """What a router would read."""
        path = self.folder / "servers" / "servers"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if not line.startswith("#")]

    def wait_for_servers(self, count: int) -> list[str]:
        self.slurm.wait_for(lambda: len(self.urls()) == count, f"{count} servers")
        return self.urls()

    def url_of(self, job: str) -> str:
        """The address of one job."""
        return (self.folder / "servers" / f"{job}.url").read_text().strip()

    def wait_ended(self, job: str) -> str:
        """How a job ended."""
        going = ("PENDING", "RUNNING", "COMPLETING", "UNKNOWN")
        self.slurm.wait_for(lambda: self.slurm.state_of(job) not in going, f"the end of {job}")
        return self.slurm.state_of(job)


@pytest.fixture
def place(slurm: Slurm, tmp_path: Path) -> Place:
    return Place(slurm, tmp_path)


def read_stream(url: str, begun: Event | None = None) -> list[str]:
    """The data of an answer's events; tells when the first ones are there."""
    events = []
    with httpx.stream(
        "POST",
        f"{url}/chat/completions",
        json={"model": "chat", "stream": True, "messages": [{"role": "user", "content": "Hi"}]},
        headers={"authorization": f"Bearer {KEY}"},
        timeout=PATIENCE_S,
    ) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data: "):
                events.append(line.removeprefix("data: "))
            if begun is not None and len(events) == 3:
                begun.set()
    return events


@contextmanager
def stream_under_way(url: str) -> Iterator[Future[list[str]]]:
    """An answer, the first events of which are there."""
    begun = Event()
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(read_stream, url, begun)
        assert begun.wait(PATIENCE_S)
        yield stream


def is_whole(events: list[str]) -> bool:
    """Whether an answer has come to its end."""
    reasons = [json.loads(event)["choices"][0]["finish_reason"] for event in events[:-1]]
    return events[-1] == "[DONE]" and reasons[-1] == "stop"


def stream_until_refused(url: str) -> list[list[str]]:
    """One answer after the other, until the server takes no more. An answer that breaks off
    raises."""
    answers = []
    while True:
        begun = Event()
        try:
            answers.append(read_stream(url, begun))
        except (AssertionError, httpx.TransportError):
            if begun.is_set():
                raise
            return answers


@pytest.fixture(scope="module")
def limited(
    slurm: Slurm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Place, str, Future[list[list[str]]]]]:
    """A job with a time limit of a minute, under load all the time. Slurm looks after limits
    every half minute, which other tests use."""
    place = Place(slurm, tmp_path_factory.mktemp("limited"))
    for _ in range(3):
        job = place.submit(
            *("--partition=high", "--cpus-per-task=1", "--time=1", "--signal=B:TERM@59"),
            DRAIN_TIMEOUT_S="30",
        )
        ended = ("COMPLETED", "FAILED", "TIMEOUT")
        slurm.wait_for(lambda: place.urls() or slurm.state_of(job) in ended, "the server")  # noqa: B023
        if place.urls():
            break  # and not signalled while it still started, on a very slow machine
    (url,) = place.urls()
    with ThreadPoolExecutor(1) as pool:
        yield place, job, pool.submit(stream_until_refused, url)
        slurm.run("scancel", "--full", "--signal=KILL", job)


def test_replicas_behind_a_router_take_turns(limited: object, place: Place) -> None:
    front = place.folder / "front"
    config = shutil.copy(ROUTER, place.folder)
    router = place.submit(SERVERS_DIR=str(front), CONFIG_FILE=config)
    job = place.submit("--array=0-2%2")
    place.wait_for_servers(2)
    place.slurm.wait_for((front / f"{router}.url").exists, "the router")
    url = (front / f"{router}.url").read_text().strip()
    place.slurm.wait_for(lambda: targets_up(url) == 2, "the router to know both")
    first = place.url_of(job_id(place, f"{job}_0"))
    with stream_under_way(url) as one, stream_under_way(url) as two:
        assert place.slurm.run("scancel", "--signal=TERM", f"{job}_0") == ""
        place.slurm.wait_for(lambda: first not in place.urls(), "one address to go")
        assert is_whole(one.result(PATIENCE_S))
        assert is_whole(two.result(PATIENCE_S))
    assert place.wait_ended(f"{job}_0") == "COMPLETED"
    # The third task of the array takes its place.
    assert first not in place.wait_for_servers(2)
    assert is_whole(read_stream(url))
    place.slurm.run("scancel", job, router)
    place.wait_for_servers(0)


def targets_up(url: str) -> float:
    """How many servers a router has found to be well."""
    page = httpx.get(
        url.replace("/v1", "/metrics"), headers={"authorization": f"Bearer {KEY}"}, timeout=60
    )
    return sum(
        float(line.rpartition(" ")[2])
        for line in page.text.splitlines()
        if line.startswith("gateway_target_up{")
    )


def job_id(place: Place, task: str) -> str:
    """The number of a task of an array among all jobs."""
    shown = place.slurm.run("scontrol", "show", "job", task)
    return shown.partition("JobId=")[2].split()[0]


def test_a_cancelled_job_drains_and_one_with_an_open_key_fails(place: Place) -> None:
    keys = place.folder / "open"
    keys.write_text(KEY)
    keys.chmod(0o644)
    refused = place.submit(f"--output={place.folder}/refused.log", KEY_FILE=str(keys))
    job = place.submit()
    (url,) = place.wait_for_servers(1)
    assert url == place.url_of(job)
    with stream_under_way(url) as stream:
        assert place.slurm.run("scancel", job).strip() == ""
        assert is_whole(stream.result(PATIENCE_S))
    assert place.wait_ended(job) == "CANCELLED"
    assert place.urls() == []
    assert not (place.folder / "servers" / f"{job}.url").exists()
    assert place.wait_ended(refused) == "FAILED"
    said = (place.folder / "refused.log").read_text()
    assert f"llm-gateway: KEY_FILE={keys} is not yours alone: chmod 600 {keys}" in said
    assert "Traceback" not in said
    assert list(place.folder.glob("llm-gateway-*")) == []  # their scratch folders


def test_a_preempted_job_drains(place: Place) -> None:
    job = place.submit()
    (url,) = place.wait_for_servers(1)
    with stream_under_way(url) as stream:
        # More than are free beside the job, with or without the one that has a time limit.
        most = f"--cpus-per-task={CPUS - JOB_CPUS + 1}"
        other = place.slurm.submit("--partition=high", "--mem=100", most, "--wrap=true")
        place.slurm.wait_for(lambda: place.urls() == [], "the address to go")
        assert is_whole(stream.result(PATIENCE_S))
    assert place.wait_ended(job) in ("COMPLETED", "PREEMPTED")
    assert place.wait_ended(other) == "COMPLETED"


def test_the_time_limit_drains(limited: tuple[Place, str, Future[list[list[str]]]]) -> None:
    place, job, streams = limited
    answers = streams.result(PATIENCE_S)
    assert answers
    assert all(map(is_whole, answers))
    assert place.wait_ended(job) == "COMPLETED"  # and not TIMEOUT
    assert place.urls() == []
