"""The list of servers, the file of keys and the script, without Slurm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.slurm import servers as servers_module
from deploy.slurm.job import JobError, keys_of, reachable_host, scratch
from deploy.slurm.servers import LIST, Servers, ServersError
from gateway.routing.discovery import from_file

ROOT = Path(__file__).parents[2]
PLACES = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
SHELLCHECK = shutil.which("shellcheck", path=PLACES)


def listed(folder: Path) -> list[str]:
    """What a router reads."""
    return [f"{address.host}:{address.port}" for address in from_file(folder / LIST)]


def test_routers_see_who_has_published(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "servers"
    one, two = Servers(folder, "1"), Servers(folder, "2")
    assert folder.stat().st_mode & 0o777 == 0o700
    one.withdraw()  # without effect
    one.publish("http://10.0.0.1:8001/v1")
    two.publish("http://10.0.0.2:8002/v1")
    assert listed(folder) == ["10.0.0.1:8001", "10.0.0.2:8002"]
    one.withdraw()
    one.withdraw()
    assert listed(folder) == ["10.0.0.2:8002"]
    two.withdraw()
    assert listed(folder) == []
    assert [path.name for path in folder.iterdir()] == [LIST]


def test_many_at_once_leave_out_nobody(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from deploy.slurm.servers import Servers\n"
        "s = Servers(Path(sys.argv[1]), sys.argv[2]); input()\n"
        "s.publish(f'http://10.0.0.1:{sys.argv[2]}/v1'); print(flush=True); input()\n"
        "s.withdraw() if int(sys.argv[2]) % 2 else None"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path, str(port)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for port in range(7001, 7007)
    ]

    def tell(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    for process in started:
        tell(process)
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
    assert listed(tmp_path) == [f"10.0.0.1:{port}" for port in range(7001, 7007)]
    for process in started:
        tell(process)
    for process in started:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert listed(tmp_path) == [f"10.0.0.1:{port}" for port in (7002, 7004, 7006)]


def test_a_server_that_was_killed_is_left_out_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers_module, "REFRESH_S", 0.01)
    dead = tmp_path / "7.url"
    dead.write_text("http://10.0.0.7:8007/v1\n")
    os.utime(dead, (0, 0))
    alive = Servers(tmp_path, "1")
    alive.publish("http://10.0.0.1:8001/v1")
    deadline = time.monotonic() + 60
    while dead.exists() or len(listed(tmp_path)) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert listed(tmp_path) == ["10.0.0.1:8001"]
    (tmp_path / "1.url").unlink()  # the others took it for dead
    (tmp_path / LIST).unlink()
    while not (tmp_path / LIST).exists() or listed(tmp_path) != ["10.0.0.1:8001"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    alive.withdraw()


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ServersError, match=f"chmod 700 {tmp_path}"):
        Servers(tmp_path, "1")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ServersError, match="SERVERS_DIR="):
        Servers(file / "below", "1")


def test_keys_come_from_a_file_for_the_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    with pytest.raises(JobError, match=r"No such file.*openssl rand"):
        keys_of(file)
    file.touch(0o600)
    with pytest.raises(JobError, match="is empty"):
        keys_of(file)
    file.write_text("first, second\nthird\n")
    assert keys_of(file) == ("first", "second", "third")
    for mode in (0o640, 0o604, 0o660):
        file.chmod(mode)
        with pytest.raises(JobError, match=f"chmod 600 {file}"):
            keys_of(file)


def test_the_address_is_one_that_others_find() -> None:
    assert reachable_host({"ADVERTISE_HOST": "10.1.2.3"}) == "10.1.2.3"
    assert reachable_host({"SLURMD_NODENAME": "localhost"}) == "localhost"
    own = os.uname().nodename
    assert reachable_host({"SLURMD_NODENAME": "no-such-node.invalid"}) == own
    assert reachable_host({}) == own


def test_scratch_ends_with_the_job_and_keeps_what_is_set(tmp_path: Path) -> None:
    environ = {"TMPDIR": str(tmp_path), "TRITON_CACHE_DIR": "/elsewhere"}
    with scratch(environ, "9") as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith("llm-gateway-9-")
        assert environ["DATA_DIR"] == f"{folder}/data"
        assert environ["TRITON_CACHE_DIR"] == "/elsewhere"
        (folder / "data").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_outside_of_slurm_it_says_how_to_start_it() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    done = subprocess.run(
        [sys.executable, "-m", "deploy.slurm"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "llm-gateway: this runs as a job of Slurm: sbatch serve.sbatch\n"


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
def test_the_script_has_no_fault() -> None:
    script = ROOT / "deploy" / "slurm" / "serve.sbatch"
    done = subprocess.run(
        [str(SHELLCHECK), "--severity=style", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
