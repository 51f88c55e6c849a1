"""Subcommands and options of programs that readers have and this test does not run.

Each list was read in the program's own help. An option that is not here is either one that does not
exist or one that nobody has looked up yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Program:
    """``commands`` maps a subcommand's words, or none, to its options."""

    commands: dict[str, frozenset[str]]
    common: frozenset[str] = field(default=frozenset())

    def check(self, arguments: Sequence[str]) -> None:
        """Raises AssertionError for a subcommand or an option that is not listed."""
        command = max(
            (name for name in self.commands if starts_with(positional(arguments), name.split())),
            key=len,
            default=None,
        )
        assert command is not None, f"none of {sorted(self.commands)}"
        known = self.commands[command] | self.common
        for word in options(arguments):
            assert word in known, f"{word} is not listed for {command!r}"


def positional(arguments: Sequence[str]) -> list[str]:
    return [word for word in arguments if not word.startswith("-")]


def options(arguments: Sequence[str]) -> list[str]:
    """Without values; whatever follows ``--`` belongs to another program."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return [word.partition("=")[0] for word in own if word.startswith("-") and word != "-"]


def starts_with(words: list[str], name: list[str]) -> bool:
    return words[: len(name)] == name


def of(*names: str) -> frozenset[str]:
    return frozenset(names)


UNCHECKED = of(
    "scripts/verify_cloud.sh",
    *(
        "cd",
        "cp",
        "dirname",
        "cat",
        "chmod",
        "mkdir",
        "rm",
        "echo",
        "export",
        "grep",
        "head",
        "jq",
        "kill",
    ),
    *("printf", "python", "python3", "sed", "sleep", "source", "sudo", "tail", "tee", "test"),
    *(
        "umask",
        "hf",
        "openssl",
        "pip",
        "git",
        "ls",
        "install",
        ".",
        "xargs",
        "base64",
        "awk",
        "sort",
    ),
)

KUBECTL = of("-n", "--namespace", "--context")
KNOWN = {
    "kubectl": Program(
        {
            "apply": of("-k", "-f", "--dry-run", "--server-side"),
            "delete": of("-k", "-f", "--ignore-not-found", "--wait"),
            "diff": of("-k", "-f"),
            "kustomize": of("-o", "--output"),
            "get": of("-o", "--output", "-w", "--watch", "-l", "--selector", "--raw"),
            "describe": of("-l", "--selector"),
            "logs": of("-f", "--follow", "-l", "--selector", "--tail", "-c", "--previous"),
            "port-forward": of("--address"),
            "rollout status": of("--timeout"),
            "rollout undo": of("--to-revision"),
            "rollout history": of("--revision"),
            "rollout restart": of(),
            "scale": of("--replicas"),
            "set image": of(),
            "wait": of("--for", "--timeout", "-l", "--selector"),
            "create namespace": of(),
            "create secret generic": of("--from-literal", "--from-file", "--from-env-file"),
            "label": of("--overwrite"),
            "annotate": of("--overwrite"),
            "top pod": of("-l"),
            "exec": of("-i", "-t", "-it", "-c"),
            "run": of("--image", "--rm", "-i", "-t", "-it", "--restart"),
            "api-resources": of("--api-group"),
            "explain": of(),
            "version": of("--client"),
        },
        KUBECTL,
    ),
    "docker": Program(
        {
            "build": of("-f", "--file", "-t", "--tag", "--build-arg", "--target", "--platform"),
            "buildx build": of(
                "-f", "--file", "-t", "--tag", "--build-arg", "--platform", "--push"
            ),
            "buildx imagetools inspect": of("--format"),
            "run": of(
                *(
                    "--detach",
                    "--rm",
                    "-d",
                    "-p",
                    "--publish",
                    "-e",
                    "--env",
                    "--env-file",
                    "-v",
                    "--volume",
                ),
                *("--name", "--read-only", "--tmpfs", "--gpus", "--cap-drop", "--security-opt"),
                *(
                    "--user",
                    "--shm-size",
                    "--ipc",
                    "--mount",
                    "--memory",
                    "--cpus",
                    "--stop-timeout",
                ),
            ),
            "compose": of(
                *(
                    "-f",
                    "--file",
                    "--profile",
                    "-d",
                    "--detach",
                    "--build",
                    "--wait",
                    "-v",
                    "--volumes",
                )
            ),
            "push": of(),
            "pull": of(),
            "tag": of(),
            "stop": of("-t", "--time"),
            "rename": of(),
            "rm": of("-f", "--force"),
            "logs": of("-f", "--follow", "--tail"),
            "image inspect": of("--format"),
            "image ls": of(),
            "images": of("--digests"),
            "volume create": of(),
            "volume rm": of(),
            "system df": of(),
        }
    ),
    "gcloud": Program(
        {
            "auth login": of(),
            "auth application-default login": of(),
            "auth print-access-token": of(),
            "auth print-identity-token": of("--audiences"),
            "auth configure-docker": of("--quiet"),
            "config set": of(),
            "config get-value": of(),
            "services enable": of(),
            "artifacts repositories create": of("--repository-format", "--location"),
            "artifacts repositories delete": of("--location", "--quiet"),
            "artifacts docker images list": of("--include-tags"),
            "artifacts docker images describe": of("--format"),
            "builds submit": of("--tag", "--config", "--substitutions", "--region", "--timeout"),
            "iam service-accounts create": of("--display-name"),
            "projects add-iam-policy-binding": of("--member", "--role"),
            "projects create": of(),
            "projects describe": of("--format"),
            "secrets create": of("--data-file", "--replication-policy"),
            "secrets delete": of("--quiet"),
            "secrets add-iam-policy-binding": of("--member", "--role"),
            "secrets versions add": of("--data-file"),
            "storage cp": of("--recursive", "-r"),
            "storage buckets create": of("--location"),
            "run deploy": of(
                *("--image", "--region", "--concurrency", "--min", "--max", "--cpu", "--memory"),
                *("--cpu-boost", "--no-cpu-throttling", "--execution-environment", "--gpu"),
                *("--startup-probe", "--gpu-type", "--no-gpu-zonal-redundancy"),
                "--no-allow-unauthenticated",
            ),
            "run services replace": of("--region", "--dry-run"),
            "run services describe": of("--region", "--format"),
            "run services delete": of("--region", "--quiet"),
            "run services proxy": of("--region", "--port"),
            "run services add-iam-policy-binding": of("--region", "--member", "--role"),
            "run services update-traffic": of("--region", "--to-revisions", "--to-latest"),
            "run revisions list": of("--service", "--region"),
            "container clusters create": of("--region", "--zone", "--num-nodes", "--machine-type"),
            "container clusters create-auto": of("--region"),
            "container clusters get-credentials": of("--region", "--zone"),
            "container clusters delete": of("--region", "--zone", "--quiet"),
            "container node-pools create": of(
                *("--cluster", "--region", "--zone", "--machine-type", "--accelerator", "--spot"),
                *("--num-nodes", "--enable-autoscaling", "--min-nodes", "--max-nodes"),
            ),
            "ai endpoints list": of("--region", "--format"),
            "ai models list": of("--region", "--format"),
            "logging read": of("--limit", "--format", "--freshness"),
        },
        of("--project"),
    ),
    "sbatch": Program(
        {
            "": of(
                *("--array", "--time", "--partition", "--gres", "--cpus-per-task", "--mem"),
                *("--export", "--signal", "--nodes", "--output", "--job-name", "--parsable"),
                *("-p", "-t", "-N", "-c", "--requeue", "--account", "-A", "--qos", "--gpus"),
            )
        }
    ),
    "squeue": Program({"": of("--me", "-j", "--jobs", "--format", "-o", "-u")}),
    "scancel": Program({"": of("--signal", "-s", "--full", "-f", "--batch", "-b", "--name", "-n")}),
    "scontrol": Program({"": of()}),
    "sacct": Program({"": of("-j", "--jobs", "--format")}),
    "sinfo": Program({"": of("-o", "--format")}),
    "ray": Program(
        {
            "start": of(
                *("--head", "--address", "--num-cpus", "--num-gpus", "--port"),
                "--disable-usage-stats",
            ),
            "get-auth-token": of("--generate"),
            "stop": of("--force"),
            "status": of(),
        }
    ),
    "serve": Program(
        {
            "run": of("--non-blocking", "--route-prefix", "--name"),
            "deploy": of(),
            "status": of(),
            "shutdown": of("-y", "--yes"),
            "build": of("-o", "--output-path"),
        },
        of("-a", "--address"),
    ),
    "promtool": Program(
        {"check rules": of(), "check config": of(), "test rules": of(), "query instant": of()}
    ),
    "prometheus": Program({"": of("--config.file", "--storage.tsdb.path", "--web.listen-address")}),
    "hadolint": Program({"": of("--config", "-c")}),
}
