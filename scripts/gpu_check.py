"""What only a GPU can show: quantised models through the gateway, their agreement with fp32,
streaming, a killed engine and its return. ``scripts/gpu_check.sh`` runs it and the load test.

    python scripts/gpu_check.py --out bench-results/gpu           # on a GPU
    python scripts/gpu_check.py --out /tmp/check --cpu            # a rehearsal without one

The model is the bundled one, whose greedy answers mean something at every precision; its
AWQ and INT8 checkpoints are those of the tests. Exit status 0: every check passed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "vllm"), str(ROOT / "tests" / "gateway")]

import httpx  # noqa: E402
from vllm_server import NAME, Streams, VllmServer, asked, kill  # noqa: E402

from gateway.chat.tokens import TokenTexts  # noqa: E402

BUNDLED = ROOT / "engine" / "models" / "bundled" / "tiny-chat"
KEPT = ROOT / "tests" / "vllm" / "checkpoints"
TOKENS = 48
PROMPTS = (
    "Hello! Who are you?",
    "What is the capital of France?",
    "What is 2 plus 3?",
    "Count from 1 to 5.",
    "Spell the word cat.",
    "Say hello in German.",
    "Name three colours.",
    "What day comes after Monday?",
    "Is the sky blue?",
    "What is 7 minus 4?",
    "My name is Ada. What is my name?",
    "What is the opposite of hot?",
    "How many days has a week?",
    "Tell me something about rivers.",
    "Answer with yes or no: is ice cold?",
    "Thank you and goodbye.",
)


@dataclass(frozen=True)
class Variant:
    """One way to serve the model.

    Attributes:
        agreement: least share of tokens that are what fp32 would have chosen there.
    """

    name: str
    model: Path
    agreement: float
    settings: dict[str, str]


ON_GPU = (
    Variant("none", BUNDLED, 0.97, {"QUANTIZATION": "none", "DTYPE": "bfloat16"}),
    Variant("fp8", BUNDLED, 0.90, {"QUANTIZATION": "fp8", "DTYPE": "bfloat16"}),
    Variant("fp8 checkpoint", KEPT / "fp8", 0.90, {"QUANTIZATION": "fp8", "DTYPE": "bfloat16"}),
    Variant("awq", KEPT / "awq", 0.80, {"QUANTIZATION": "awq", "DTYPE": "float16"}),
)
ON_CPU = (
    Variant("none", BUNDLED, 0.999, {"QUANTIZATION": "none", "DTYPE": "float32"}),
    Variant("int8", KEPT / "int8", 0.90, {"QUANTIZATION": "auto", "DTYPE": "float32"}),
)


@dataclass
class Found:
    """What one variant did."""

    variant: str
    ready_s: float = 0.0
    version: dict[str, Any] = field(default_factory=dict)
    agreement: float = 0.0
    wanted: float = 0.0
    chunks: int = 0
    kill: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


class Reference:
    """The unquantised model in fp32, by transformers."""

    def __init__(self, device: str) -> None:
        import torch
        from tokenizers import Tokenizer
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        self._device = device
        torch.backends.cuda.matmul.allow_tf32 = False
        model = AutoModelForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32)
        self._model = model.to(device).eval()
        self._template = AutoTokenizer.from_pretrained(BUNDLED).apply_chat_template
        self._tokenizer = Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
        texts = TokenTexts(self._tokenizer)
        self._by_bytes = {texts.bytes_of(i): i for i in range(self._tokenizer.get_vocab_size())}

    def prompt(self, content: str) -> list[int]:
        """The chat prompt's ids."""
        messages = [{"role": "user", "content": content}]
        text = self._template(messages, tokenize=False, add_generation_prompt=True)
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def chosen(self, prompt: list[int], output: list[int]) -> list[int]:
        """What fp32 takes at each place of ``output``, given what stands before it."""
        torch = self._torch
        ids = torch.tensor([prompt + output], device=self._device)
        with torch.no_grad():
            logits = self._model(ids).logits[0]
        return [int(i) for i in logits[len(prompt) - 1 : -1].argmax(-1)]

    def ids_of(self, entries: list[Any]) -> list[int]:
        """Token ids of the answer's log-probabilities, by the bytes of each token."""
        return [self._by_bytes[bytes(entry.bytes)] for entry in entries]


def agreement(server: VllmServer, reference: Reference) -> float:
    """Share of greedy tokens that fp32 would have chosen in the same place."""
    same = total = 0
    for content in PROMPTS:
        body = asked(content, TOKENS)
        body.pop("ignore_eos")
        answer = server.sdk.chat.completions.create(**body, logprobs=True)
        prompt = reference.prompt(content)
        if answer.usage.prompt_tokens != len(prompt):
            raise AssertionError(f"prompt of {answer.usage.prompt_tokens}, not {len(prompt)} ids")
        output = reference.ids_of(answer.choices[0].logprobs.content)
        wanted = reference.chosen(prompt, output)
        same += sum(a == b for a, b in zip(output, wanted, strict=True))
        total += len(output)
    return same / total


def stream(server: VllmServer) -> int:
    """Number of chunks with text of a stream through the SDK."""
    body = asked(PROMPTS[0], TOKENS)
    extra = {"ignore_eos": body.pop("ignore_eos")}
    chunks = server.sdk.chat.completions.create(**body, stream=True, extra_body=extra)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    return sum(bool(piece) for piece in pieces)


def kill_and_recover(server: VllmServer) -> dict[str, Any]:
    """SIGKILL EngineCore under eight streams, which wait for it to come back."""
    undisturbed = Streams(server, list(PROMPTS[:8]), 1000).wait()
    streams = Streams(server, list(PROMPTS[:8]), 1000)
    streams.wait_open()
    killed = kill(server.cores()[0])
    after = streams.wait()
    pairs = list(zip(after, undisturbed, strict=True))
    return {
        "finished": sum(one.finish == "length" for one in after),
        "errors": [str(one.error) for one in after if one.error is not None],
        "same_text": sum(one.text == other.text for one, other in pairs),
        "seconds_to_the_last_end": round(max(one.ended for one in after) - killed, 2),
        "restarts": server.metric(
            f'gateway_engine_restarts_total{{engine="0",model_name="{NAME}"}}'
        ),
    }


def gpu_processes() -> list[str]:
    """Processes that hold GPU memory; empty without nvidia-smi."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return []
    return [line for line in done.stdout.splitlines() if line.strip()]


def check(variant: Variant, reference: Reference, out: Path, extra: dict[str, str]) -> Found:
    """Serve one variant and look at it from every side."""
    found = Found(variant.name, wanted=variant.agreement)
    folder = out / variant.name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"CARRY_ON_WAIT_S": "600", "MAX_NUM_BATCHED_TOKENS": "", **extra}
    before = gpu_processes()
    began = time.monotonic()
    server = VllmServer(folder, variant.model, **(settings | variant.settings))
    try:
        server.wait_started()
        found.ready_s = round(time.monotonic() - began, 1)
        found.version = httpx.get(f"{server.url}/version").json()["model"]
        steps: list[tuple[str, Callable[[], Any], Callable[[Any], bool]]] = [
            ("agreement", lambda: agreement(server, reference), lambda s: s >= variant.agreement),
            ("chunks", lambda: stream(server), lambda count: count > 1),
        ]
        if variant.name == "none":
            recovered = ("kill", lambda: kill_and_recover(server), lambda k: k["finished"] == 8)
            steps.append(recovered)
        for name, step, good in steps:
            value = step()
            setattr(found, name, value)
            if not good(value):
                found.faults.append(f"{name}: {value}")
        server.signal()
        if (status := server.wait_exit(120)) != 0:
            found.faults.append(f"exit status {status}")
    except Exception as error:
        found.faults.append(f"{type(error).__name__}: {error}")
    finally:
        server.kill()
    time.sleep(2)
    if left := sorted(set(gpu_processes()) - set(before)):
        found.faults.append(f"GPU memory is still held: {left}")
    return found


def line(found: Found) -> str:
    """One variant for people."""
    verdict = "FAILED: " + "; ".join(found.faults) if found.faults else "ok"
    parts = [f"**{found.variant}** {verdict}", f"ready after {found.ready_s} s"]
    if found.version:
        parts.append(f"{found.version['quantization']} on {found.version['device']}")
    parts.append(f"{found.agreement:.2%} of the tokens as fp32 (wanted {found.wanted:.1%})")
    parts.append(f"{found.chunks} chunks")
    if found.kill:
        parts.append(f"kill -9 of EngineCore under 8 streams: {found.kill}")
    return "; ".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for logs and results")
    parser.add_argument("--cpu", action="store_true", help="rehearse without a GPU")
    parser.add_argument("--only", help="one variant, by its name")
    parser.add_argument("--gpu-share", default="0.5", help="GPU memory of the engine")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    extra = {"ENFORCE_EAGER": "true"} if args.cpu else {"GPU_MEMORY_UTILIZATION": args.gpu_share}
    if not args.cpu:
        extra["ENFORCE_EAGER"] = "false"
    variants = [v for v in (ON_CPU if args.cpu else ON_GPU) if args.only in (None, v.name)]
    if not variants:
        parser.error(f"--only: there is no variant {args.only}")
    reference = Reference("cpu" if args.cpu else "cuda")
    everything = []
    for variant in variants:
        found = check(variant, reference, out, extra)
        everything.append(found)
        sys.stdout.write(f"- {line(found)}\n")
        sys.stdout.flush()
    (out / "checks.json").write_text(json.dumps([asdict(f) for f in everything], indent=1) + "\n")
    return int(any(found.faults for found in everything))


if __name__ == "__main__":
    sys.exit(main())
