"""Compiles grammars off the event loop and off the engine's thread, and keeps them."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llguidance import LLMatcher, LLParserLimits

from engine.base import EngineOverloaded, RequestRejected, StructuredOutput
from engine.structured.constraint import Constraint
from engine.structured.limits import Limits
from engine.structured.source import Source, field_of, make_source
from engine.structured.vocabulary import make_vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

# Rough memory of a compiled grammar: what it always takes, and per symbol and source byte.
_BASE_BYTES, _WEIGHT_BYTES, _SOURCE_BYTES = 64 * 1024, 2048, 32

_LOCATION = re.compile(r"^(at )?\d+\(\d+\): ")
_REGEX_CAUSE = re.compile(r"^error: (.+)$", re.MULTILINE)
# The starts of threads that need an own stack size, which Python keeps in a global.
_STARTING = threading.Lock()


class Grammar:
    """A compiled grammar; immutable and shared."""

    def __init__(self, matcher: LLMatcher, vocab_size: int, size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._lock = threading.Lock()
        self.size = size
        """Rough memory it takes, in bytes."""

    def constraint(self, output: Iterable[int] = ()) -> Constraint:
        """A constraint for one sequence, from any thread; takes some microseconds.

        Args:
            output: tokens that the sequence already has, as after a move from another engine.

        Raises:
            RequestRejected: ``output`` does not follow the grammar.
        """
        with self._lock:
            matcher = self._matcher.deep_copy()
        constraint = Constraint(matcher, self._vocab_size)
        if not constraint.accept_all(output):
            raise RequestRejected("the output so far does not follow the constraint")
        return constraint


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A grammar that cannot be compiled; kept, since finding out may take seconds."""

    message: str
    param: str | None
    size: int = 1024


class GrammarCompiler:
    """Compiles StructuredOutput for one vocabulary. All methods are thread-safe.

    Equal requests share one compilation and its result, which a cache keeps, bounded in
    entries and bytes. Each compilation has a thread of its own with a large stack.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        eos_ids: Iterable[int],
        *,
        limits: Limits | None = None,
    ) -> None:
        """Read the vocabulary: up to a second for a large one, so not on the event loop.

        Raises ValueError when grammars cannot be applied to this tokenizer.
        """
        self.limits = limits = limits or Limits()
        self._vocab_size = vocab_size
        self._vocabulary = make_vocabulary(tokenizer, vocab_size, eos_ids)
        self._parser_limits = LLParserLimits(
            max_items_in_row=limits.row_items,
            initial_lexer_fuel=limits.initial_fuel,
            step_lexer_fuel=limits.step_fuel,
            step_max_items=limits.step_items,
            max_lexer_states=limits.lexer_states,
            max_grammar_size=limits.grammar_symbols,
            verbose_errors=False,  # they would put the output into error messages and logs
        )
        self._cache: OrderedDict[StructuredOutput, Grammar | _Refusal] = OrderedDict()
        self._cached_bytes = 0
        self._pending: dict[StructuredOutput, Future[Grammar | _Refusal]] = {}
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(limits.compiling)

    @property
    def cached(self) -> tuple[int, int]:
        """Entries and rough bytes of the cache."""
        with self._lock:
            return len(self._cache), self._cached_bytes

    def compile(self, structured: StructuredOutput) -> Grammar:
        """The compiled grammar. Blocks up to ``limits.compile_s``; not for the event loop.

        Raises:
            RequestRejected: it cannot be enforced, or takes too long to compile.
            EngineOverloaded: too many grammars are being compiled.
        """
        found = self._find_or_start(structured)
        if not isinstance(found, Future):
            return _grammar_or_raise(found)
        try:
            return _grammar_or_raise(found.result(self.limits.compile_s))
        except TimeoutError:
            raise self._too_slow(structured) from None

    async def prepare(self, structured: StructuredOutput) -> Grammar:
        """``compile`` for the event loop: waits without blocking it, and may be cancelled."""
        found = self._find_or_start(structured)
        if not isinstance(found, Future):
            return _grammar_or_raise(found)
        try:
            async with asyncio.timeout(self.limits.compile_s):
                return _grammar_or_raise(await asyncio.wrap_future(found))
        except TimeoutError:
            raise self._too_slow(structured) from None

    def _find_or_start(
        self, structured: StructuredOutput
    ) -> Grammar | _Refusal | Future[Grammar | _Refusal]:
        with self._lock:
            cached = self._cache.get(structured)
            if cached is not None:
                self._cache.move_to_end(structured)
                return cached
            pending = self._pending.get(structured)
            if pending is not None:
                return pending
            if len(self._pending) >= self.limits.pending:
                raise EngineOverloaded("too many grammars are being compiled")
            future: Future[Grammar | _Refusal] = Future()
            future.set_running_or_notify_cancel()  # one waiter must not cancel it for others
            self._pending[structured] = future
        thread = threading.Thread(
            target=self._run, args=(structured, future), name="grammar", daemon=True
        )
        try:
            _start_with_stack(thread, self.limits.stack_bytes)
        except RuntimeError as error:  # no memory for the stack, or too many threads
            with self._lock:
                del self._pending[structured]
            future.set_exception(EngineOverloaded(f"a grammar cannot be compiled now: {error}"))
        return future

    def _run(self, structured: StructuredOutput, future: Future[Grammar | _Refusal]) -> None:
        with self._slots:
            try:
                result: Grammar | _Refusal = self._compile(make_source(structured, self.limits))
            except RequestRejected as error:
                result = _Refusal(str(error), error.param)
            except BaseException:  # a panic of the Rust side derives from BaseException only
                log.exception("a grammar could not be compiled")
                result = _Refusal("the constraint cannot be compiled", None)
        with self._lock:
            self._pending.pop(structured, None)
            self._remember(structured, result)
        future.set_result(result)

    def _compile(self, source: Source) -> Grammar:
        matcher = LLMatcher(self._vocabulary, source.lark, log_level=0, limits=self._parser_limits)
        if not matcher.is_error():
            # Some faults show only now; and what the first mask computes stays in the copies.
            matcher.compute_bitmask()
        if matcher.is_error() or matcher.stop_reason() == "InternalError":
            raise RequestRejected(
                f"Invalid '{source.param}': {explain(matcher.get_error())}.", param=source.param
            )
        size = _BASE_BYTES + _WEIGHT_BYTES * source.weight + _SOURCE_BYTES * len(source.lark)
        return Grammar(matcher, self._vocab_size, size)

    def _remember(self, structured: StructuredOutput, result: Grammar | _Refusal) -> None:
        limits = self.limits
        if result.size > limits.cache_bytes:
            return
        replaced = self._cache.pop(structured, None)
        self._cache[structured] = result
        self._cached_bytes += result.size - (replaced.size if replaced is not None else 0)
        while len(self._cache) > limits.cache_entries or self._cached_bytes > limits.cache_bytes:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= dropped.size

    def _too_slow(self, structured: StructuredOutput) -> RequestRejected:
        param = field_of(structured)
        return RequestRejected(
            f"Invalid '{param}': it was not compiled within {self.limits.compile_s:g} s; "
            "make it smaller.",
            param=param,
        )


def explain(error: str) -> str:
    """What llguidance says is wrong, without its listing of the grammar."""
    cause = _REGEX_CAUSE.search(error)
    line = _LOCATION.sub("", error.partition("\n")[0]).partition("; following special tokens")[0]
    line = line.removeprefix("failed to compile JSON schema: ")
    if cause is not None and "regex" in line:
        line = f"the regular expression is not supported: {cause.group(1)}"
    if line.startswith("panic") or not line:
        line = "the constraint is too complex"
    if "NoExtension" in line:
        line = "no output can satisfy it"
    line = line.replace("Unimplemented keys", "these keywords cannot be enforced")
    return line[:300].rstrip(". ")


def _grammar_or_raise(found: Grammar | _Refusal) -> Grammar:
    if isinstance(found, _Refusal):
        raise RequestRejected(found.message, param=found.param)
    return found


def _start_with_stack(thread: threading.Thread, stack_bytes: int) -> None:
    with _STARTING:
        before = threading.stack_size(stack_bytes)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
