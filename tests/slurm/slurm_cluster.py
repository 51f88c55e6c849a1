"""A Slurm of one node: real slurmctld and slurmd, with all their state in one folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from server_process import end_with_the_tests

PATIENCE_S = 180.0
NAMES = ("slurmctld", "slurmd", "slurmstepd", "sbatch", "srun", "scancel", "scontrol")
SEARCHED = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
CPUS = 16


def missing() -> str | None:
    """Why no Slurm can be started here, or None."""
    for name in NAMES:
        if shutil.which(name, path=SEARCHED) is None:
            return f"{name} is not installed (Debian: slurmctld, slurmd)"
    if os.geteuid() != 0:
        return "slurmd needs root to start the steps of jobs"
    return None


class Slurm:
    """Jobs run as the user of the tests. No authentication: it listens on loopback only.

    Two partitions share the node: jobs of ``high`` take the place of those of ``main``, which
    get a grace time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._conf = folder / "slurm.conf"
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._conf.write_text(self._settings())
        self.environment = {
            "PATH": SEARCHED,
            "HOME": os.environ.get("HOME", "/root"),
            "SLURM_CONF": str(self._conf),
        }

    def _settings(self) -> str:
        control, node = free_ports(2)
        state = self.folder
        for name in ("state", "spool"):
            (state / name).mkdir()
        return f"""
ClusterName=tests
SlurmctldHost={socket.gethostname()}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation={state}/state
SlurmdSpoolDir={state}/spool
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.log
NodeName=node1 NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory=64000
PartitionName=main Nodes=node1 Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes=node1 PriorityTier=2
"""

    def start(self) -> Slurm:
        """Returns once the node takes jobs."""
        self._daemon("slurmctld", "-D", "-c", "-f", str(self._conf))
        self._daemon("slurmd", "-D", "-N", "node1", "-f", str(self._conf))
        self.wait_for(lambda: "State=IDLE" in self.run("scontrol", "show", "node"), "an idle node")
        return self

    def _daemon(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.out").open("wb") as out:
            self._daemons.append(
                subprocess.Popen(
                    [str(shutil.which(name, path=SEARCHED)), *arguments],
                    cwd=self.folder,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    preexec_fn=end_with_the_tests,
                )
            )

    def run(self, *command: str, **environment: str) -> str:
        """What a command of Slurm says, errors included."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        return done.stdout + done.stderr

    def submit(self, *command: str, **environment: str) -> str:
        """The id of a new job."""
        said = self.run("sbatch", "--parsable", *command, **environment)
        assert re.fullmatch(r"\d+\n", said), f"{said}\n{self.logs()}"
        return said.strip()

    def state_of(self, job: str) -> str:
        """Such as RUNNING."""
        found = re.search(r"JobState=(\w+)", self.run("scontrol", "show", "job", job))
        return found[1] if found else "UNKNOWN"

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Poll until ``condition`` holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {PATIENCE_S} s for {what}\n{self.logs()}")
            time.sleep(0.1)

    def logs(self) -> str:
        """The ends of all that was written."""
        files = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(f"--- {file.name}\n{file.read_text()[-3000:]}" for file in files)

    def end(self) -> None:
        """Nothing of it is left, however far it came."""
        for daemon in self._daemons:
            daemon.kill()
            daemon.wait()
        deadline = time.monotonic() + 30
        while left := self._processes():
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                raise AssertionError(f"these do not end: {left}")
            time.sleep(0.05)

    def _processes(self) -> list[int]:
        """Steps and what they run have the path of this cluster's file in their environment."""
        marker = f"SLURM_CONF={self._conf}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    environ = (folder / "environ").read_bytes()
                except OSError:
                    continue  # it has ended
                if marker in environ.split(b"\0"):
                    found.append(int(folder.name))
        return found


def free_ports(count: int) -> list[int]:
    """As many that nobody listens on now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
