"""Compilation is shared, cached, bounded and out of everybody's way; masks are exact."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from structured_walks import Walker, make_tokenizer
from tokenizers import Tokenizer, decoders, models

from engine.base import EngineOverloaded, RequestRejected, StructuredOutput
from engine.structured import GrammarCompiler, Limits, compiler, mask_logits
from engine.structured.constraint import allowed_ids, keep_allowed

NUMBER = StructuredOutput(regex="[0-9]+;")
SLOW = StructuredOutput(
    json_schema=json.dumps({"type": "array", "items": {"type": "string"}, "maxItems": 8000})
)


def fresh(limits: Limits) -> GrammarCompiler:
    tokenizer = make_tokenizer()
    return GrammarCompiler(tokenizer, tokenizer.get_vocab_size(), [2], limits=limits)


def test_sequences_do_not_share_a_position(walker: Walker) -> None:
    grammar = walker.compiler.compile(NUMBER)
    first, second = grammar.constraint(), grammar.constraint()
    before = second.allowed_mask().copy()
    for token in walker.ids("12;"):
        first.accept(token)
    assert first.ended
    assert not second.ended
    assert (second.allowed_mask() == before).all()
    assert (grammar.constraint().allowed_mask() == before).all()


def test_output_made_earlier_is_replayed(walker: Walker) -> None:
    grammar = walker.compiler.compile(NUMBER)
    ids = walker.ids("123")
    step_by_step = grammar.constraint()
    for token in ids:
        step_by_step.allowed_mask()
        step_by_step.accept(token)
    replayed = grammar.constraint(ids)
    assert (replayed.allowed_mask() == step_by_step.allowed_mask()).all()
    with pytest.raises(RequestRejected, match="does not follow"):
        grammar.constraint(walker.ids("12a"))


def test_the_end_allows_only_end_of_sequence(walker: Walker) -> None:
    constraint = walker.start(NUMBER)
    assert constraint.accept_all(walker.ids("1;"))
    assert constraint.ended
    assert allowed_ids(constraint.allowed_mask()).tolist() == [walker.eos]
    constraint.accept(walker.eos)
    assert constraint.fault is None
    assert allowed_ids(constraint.allowed_mask()).tolist() == [walker.eos]


def test_end_of_sequence_is_not_allowed_before_the_end(walker: Walker) -> None:
    constraint = walker.start(NUMBER)
    assert walker.eos not in allowed_ids(constraint.allowed_mask())
    assert not constraint.accepting
    constraint.accept(walker.eos)
    assert constraint.fault is not None


def test_a_forbidden_token_is_a_fault_that_stays(walker: Walker) -> None:
    constraint = walker.start(NUMBER)
    constraint.accept(walker.ids("x")[0])
    assert constraint.fault is not None
    assert not constraint.ended
    assert not constraint.accepting
    assert not constraint.allowed_mask().any()
    constraint.accept(walker.ids("1")[0])
    assert not constraint.allowed_mask().any()


def test_a_mask_beyond_the_step_limit_is_a_fault_and_no_end() -> None:
    walker = Walker(make_tokenizer(), Limits(step_fuel=300))
    constraint = walker.start(StructuredOutput(regex="x(.*a.{20})|x(.*b.{21})|x(.*c.{22})"))
    for token in walker.ids("xabcabcabcabcabcabcabc"):
        constraint.accept(token)
        if constraint.fault is None:
            constraint.allowed_mask()
    assert constraint.fault is not None
    assert "\n" not in constraint.fault
    assert not constraint.allowed_mask().any()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize(("vocab", "covered"), [(100, 128), (96, 96), (200, 128), (1000, 1024)])
def test_masks_are_applied_exactly(share: float, vocab: int, covered: int) -> None:
    rng = np.random.default_rng(7)
    allowed = rng.random(covered) < share
    mask = np.packbits(allowed, bitorder="little").view(np.int32)
    row = rng.normal(size=vocab).astype(np.float32)
    keeps = np.zeros(vocab, bool)
    keeps[: min(vocab, covered)] = allowed[:vocab]
    expected = np.where(keeps, row, -np.inf)
    assert (allowed_ids(mask) == np.flatnonzero(allowed)).all()
    keep_allowed(row, mask)
    assert (row == expected).all()


def test_rows_of_a_batch_are_masked_on_their_own(walker: Walker) -> None:
    constraints = [walker.start(NUMBER), walker.start(StructuredOutput(choice=("yes", "no")))]
    logits = np.zeros((3, walker.vocab_size), np.float32)
    mask_logits(logits, [0, 2], constraints)
    assert (logits[1] == 0).all()
    for row, constraint in zip((0, 2), constraints, strict=True):
        kept = np.flatnonzero(logits[row] == 0)
        assert kept.tolist() == allowed_ids(constraint.allowed_mask()).tolist()
        assert 0 < len(kept) < 100


def test_equal_requests_share_one_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fresh(Limits())
    count = 0
    make_source = compiler.make_source

    def slow(structured: StructuredOutput, limits: Limits) -> compiler.Source:
        nonlocal count
        count += 1
        time.sleep(0.2)
        return make_source(structured, limits)

    monkeypatch.setattr(compiler, "make_source", slow)
    grammars = []
    threads = [
        threading.Thread(target=lambda: grammars.append(made.compile(NUMBER))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == 1
    assert len(set(map(id, grammars))) == 1
    assert made.compile(dataclasses.replace(NUMBER)) is grammars[0]


def test_the_cache_is_bounded_in_entries() -> None:
    made = fresh(Limits(cache_entries=3))
    for number in range(10):
        made.compile(StructuredOutput(regex=f"a{number}"))
    assert made.cached[0] == 3
    kept = made.compile(StructuredOutput(regex="a9"))
    assert made.compile(StructuredOutput(regex="a9")) is kept


def test_the_cache_is_bounded_in_bytes() -> None:
    made = fresh(Limits(cache_bytes=1_000_000))
    for number in range(40):
        made.compile(StructuredOutput(regex=f"a{number}"))
    entries, size = made.cached
    assert 0 < entries < 40
    assert 0 < size <= 1_000_000
    assert made.compile(SLOW).size > 1_000_000
    assert made.cached == (entries, size)


async def test_preparing_does_not_hold_up_the_event_loop() -> None:
    made = fresh(Limits())
    longest, running = 0.0, True

    async def tick() -> None:
        nonlocal longest
        while running:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before)

    ticker = asyncio.create_task(tick())
    slow = asyncio.create_task(made.prepare(SLOW))
    quick = await made.prepare(NUMBER)
    assert quick.constraint().fault is None
    await slow
    running = False
    await ticker
    assert longest < 1


async def test_one_waiter_may_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fresh(Limits())
    go = threading.Event()
    make_source = compiler.make_source

    def held(structured: StructuredOutput, limits: Limits) -> compiler.Source:
        go.wait(10)
        return make_source(structured, limits)

    monkeypatch.setattr(compiler, "make_source", held)
    leaving, staying = (asyncio.create_task(made.prepare(NUMBER)) for _ in range(2))
    await asyncio.sleep(0.05)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    go.set()
    assert (await staying).constraint().fault is None


async def test_waiting_and_queueing_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fresh(Limits(compile_s=0.1, pending=1))
    go = threading.Event()
    make_source = compiler.make_source

    def held(structured: StructuredOutput, limits: Limits) -> compiler.Source:
        go.wait(10)
        return make_source(structured, limits)

    monkeypatch.setattr(compiler, "make_source", held)
    with pytest.raises(RequestRejected, match="not compiled within"):
        await made.prepare(NUMBER)
    with pytest.raises(EngineOverloaded):
        await made.prepare(StructuredOutput(regex="other"))
    with pytest.raises(RequestRejected, match="not compiled within"):
        made.compile(NUMBER)
    go.set()
    while not made.cached[0]:
        await asyncio.sleep(0.01)
    assert (await made.prepare(NUMBER)).constraint().fault is None


def test_a_defect_is_an_error_of_this_request_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = fresh(Limits())

    class Panic(BaseException):
        pass

    def broken(structured: StructuredOutput, limits: Limits) -> compiler.Source:
        raise Panic("secret")

    with monkeypatch.context() as patch:
        patch.setattr(compiler, "make_source", broken)
        with pytest.raises(RequestRejected, match="cannot be compiled") as caught:
            made.compile(NUMBER)
    assert "secret" not in str(caught.value)
    assert "secret" in caplog.text
    assert made.compile(StructuredOutput(regex="a")).constraint().fault is None


def bad_vocabulary(tokenizer: Tokenizer, size: int, eos: Sequence[int]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        GrammarCompiler(tokenizer, size, eos)


def test_vocabularies_that_cannot_be_used() -> None:
    tokenizer = make_tokenizer()
    size = tokenizer.get_vocab_size()
    bad_vocabulary(tokenizer, size, [])
    bad_vocabulary(tokenizer, size, [size + 1])
    bad_vocabulary(tokenizer, size - 1, [2])
    bad_vocabulary(Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")), 2, [1])


def test_byte_fallback_vocabulary() -> None:
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "é", "▁a"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    made = GrammarCompiler(tokenizer, len(pieces), [1])
    constraint = made.compile(StructuredOutput(choice=(" aé\n",))).constraint()
    first = {pieces[token] for token in allowed_ids(constraint.allowed_mask())}
    assert first == {"▁", "▁a", "<0x20>"}
    assert constraint.accept_all([vocabulary["▁a"], vocabulary["<0xC3>"], vocabulary["<0xA9>"]])
    assert constraint.accept_all([vocabulary["<0x0A>"]])
    assert constraint.ended
