# ruff: noqa: T201 - a command that talks to a person
"""Trains the bundled model from nothing: corpus, tokenizer, network, export.

    python -m engine.models.bundled.train --out DIR --seed 1

The same seed, step count, process count and library versions give the same weights.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from engine.models.bundled import tokenizer as bpe
from engine.models.bundled import workers
from engine.models.bundled.batches import Batch, Encoder, batches, copies, joined, text_of
from engine.models.bundled.corpus.mix import conversations
from engine.models.bundled.initial import initialise
from engine.models.bundled.network import Llama, Shape
from engine.models.bundled.optimizer import Muon

ROWS, LENGTH = 8, 480
COPY_ROWS, COPY_UNTIL = 1, 0.15
LONG_ROWS, LONG_LENGTH = 2, 2048
LONG_SHARE = 0.05
WARM_UP, DECAY_FROM = 0.02, 0.3
# A second, shorter schedule, on conversations that have tools more often, and harder ones.
FINISH_RATE = 0.4
FINISH_LONG_EVERY = 12
TOKENIZER_CONVERSATIONS = 30_000
# Exported weights are a running mean over about this many steps: less noisy than the last ones.
AVERAGED_STEPS = 60


def build_tokenizer(seed: int, count: int = TOKENIZER_CONVERSATIONS) -> Tokenizer:
    """A tokenizer trained on `count` conversations of the corpus."""
    return bpe.train(text_of(item) for item in conversations(seed, count))


def loss_of(model: Llama, batch: Batch, device: str) -> Tensor:
    """Cross-entropy in nats, summed over the tokens with their weights."""
    documents = torch.from_numpy(batch.documents).to(device)
    steps = documents.shape[1]
    causal = torch.ones(steps, steps, dtype=torch.bool, device=device).tril()
    mask = (documents[:, None, :, None] == documents[:, None, None, :]) & causal
    hidden = model.hidden_states(torch.from_numpy(batch.ids).to(device), mask)
    weights = torch.from_numpy(batch.weights).to(device)
    kept = weights > 0
    targets = torch.from_numpy(batch.targets).to(device)[kept]
    losses = functional.cross_entropy(model.logits(hidden[kept]), targets, reduction="none")
    return (losses * weights[kept]).sum()


def learn(model: Llama, optimizer: Muon, batch: Batch, device: str, factor: float) -> float:
    """One update from a batch, of which each process takes its rows; the mean loss."""
    own = batch.part(workers.rank(), workers.count())
    loss = loss_of(model, own, device)
    optimizer.zero_grad()
    (loss / batch.weights.sum()).backward()
    gradients = [p.grad for p in optimizer.parameters if p.grad is not None]
    if workers.count() > 1:
        flat = workers.total(torch.cat([gradient.flatten() for gradient in gradients]))
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, summed in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(summed.view_as(gradient))
    optimizer.step(factor)
    return float(workers.total(loss.detach()) / batch.weights.sum())


def schedule(progress: float) -> float:
    """Learning-rate factor at a progress of 0 to 1: warm-up, plateau, linear to almost zero."""
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.02)
    if progress < DECAY_FROM:
        return 1.0
    return max(0.01, 1.0 - (progress - DECAY_FROM) / (1.0 - DECAY_FROM))


def finishing_schedule(progress: float) -> float:
    """The same for the finishing steps: linear to almost zero."""
    return max(0.01, FINISH_RATE * (1.0 - progress))


def export(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the Hugging Face folder: float16 weights, configuration, tokenizer, template."""
    folder.mkdir(parents=True, exist_ok=True)
    eos, pad = bpe.token_id(tokenizer, bpe.IM_END), bpe.token_id(tokenizer, bpe.END_OF_TEXT)
    weights = {name: value.detach().to("cpu", torch.float16).contiguous()
               for name, value in model.state_dict().items()}  # fmt: skip
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    _write(folder / "config.json", model.shape.config(eos, pad))
    generation = {"eos_token_id": [eos, pad], "pad_token_id": pad, "do_sample": False}
    _write(folder / "generation_config.json", generation)
    bpe.save(tokenizer, folder)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def train(
    out: Path,
    steps: int,
    seed: int,
    finish: int = 0,
    export_every: int = 0,
    resume: Path | None = None,
) -> Llama:
    """Trains for `steps` and `finish` further steps, and exports."""
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if resume:
        # The corpus may have changed since; the tokens of the weights must not.
        tokenizer = Tokenizer.from_file(str(resume.with_suffix("") / "tokenizer.json"))
    else:
        tokenizer = build_tokenizer(seed)
    model: Llama = Llama(Shape())
    initialise(model)
    model.to(device)
    optimizer = Muon(model)
    averaged = copy.deepcopy(model)
    step, tokens, mean, begin = 0, 0, 0.0, time.monotonic()
    if resume:
        state = torch.load(resume)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state(state["optimizer"])
        step, tokens, begin = state["step"], state["tokens"], begin - state["elapsed"]
    encoder = Encoder(tokenizer)
    short = batches(encoder, seed + step, ROWS, LENGTH)
    plain = batches(encoder, seed + step, ROWS - COPY_ROWS, LENGTH)
    # Tokens as frequent as in the corpus, and each token at least once.
    frequent = next(short).ids
    pool = np.concatenate((frequent[frequent > 8], np.arange(9, model.shape.vocabulary)))
    copying = copies(seed + step, COPY_ROWS, LENGTH, pool)
    long = batches(encoder, seed + step, LONG_ROWS, LONG_LENGTH, long=True)
    # Seeds of their own, so that a run resumed where these begin equals one that went through.
    last = batches(encoder, seed + steps, ROWS, LENGTH, finishing=True)
    last_long = batches(encoder, seed + steps, LONG_ROWS, LONG_LENGTH, long=True)
    if not workers.rank():
        size = sum(p.numel() for p in model.parameters())
        print(f"{size:,} parameters on {workers.count()} x {device}", flush=True)
    while step < steps + finish:
        if step >= steps:
            rate = finishing_schedule((step - steps) / finish)
            batch = next(last_long if step % FINISH_LONG_EVERY == 0 else last)
        else:
            progress = step / steps
            rate = schedule(progress)
            if progress < COPY_UNTIL:
                batch = joined(next(plain), next(copying))
            else:
                batch = next(long if progress > 1 - LONG_SHARE else short)
        loss = learn(model, optimizer, batch, device, rate)
        step += 1
        tokens += batch.ids.size
        mean = 0.95 * mean + 0.05 * loss if mean else loss
        average(averaged, model, 1 / min(step, AVERAGED_STEPS))
        if workers.rank():
            continue
        elapsed = time.monotonic() - begin
        if step % 20 == 1:
            print(f"step {step} rate {rate:.3f} loss {mean:.4f} {tokens / 1e6:.2f}M "
                  f"tokens {tokens / elapsed:.0f}/s", flush=True)  # fmt: skip
        if export_every and step % export_every == 0:
            export(averaged, tokenizer, out)
            state = {"model": model.state_dict(), "averaged": averaged.state_dict(),
                     "optimizer": optimizer.state(), "step": step, "tokens": tokens,
                     "elapsed": elapsed}  # fmt: skip
            torch.save(state, out.parent / f"{out.name}.pt")
    wall, cpu = (time.monotonic() - begin) / 60, time.process_time() / 60
    cpu = float(workers.total(torch.tensor(cpu)))
    if not workers.rank():
        export(averaged, tokenizer, out)
        print(f"done: {step} steps, {tokens:,} tokens, {wall:.1f} min wall, {cpu:.1f} min CPU")
    return averaged


def average(averaged: Llama, model: Llama, weight: float) -> None:
    """Moves the running mean of the parameters towards the current ones."""
    with torch.no_grad():
        for kept, fresh in zip(averaged.parameters(), model.parameters(), strict=True):
            kept.lerp_(fresh, weight)


def _train(options: argparse.Namespace) -> None:
    train(options.out, options.steps, options.seed, options.finish, options.export_every,
          options.resume)  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the bundled tiny chat model.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--finish", type=int, default=2600, help="further steps: harder tools")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, help="one per core; 1 with a GPU")
    parser.add_argument("--export-every", type=int, default=0, help="steps between exports")
    parser.add_argument("--resume", type=Path, help="a .pt file written beside an export")
    options = parser.parse_args()
    workers.run(options.processes, functools.partial(_train, options))


if __name__ == "__main__":
    main()
