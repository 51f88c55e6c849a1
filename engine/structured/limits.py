"""How much work one grammar may cause, before, while and after it is compiled.

llguidance bounds its own work by "fuel", which leaves gaps: some passes are not counted, and
recursion over long chains of references can overflow the stack, which no exception handler
survives. The static bounds below close the gaps that were found by reading its source
(1.7.6) and by trying hostile input.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one compiler.

    Attributes:
        source_bytes: UTF-8 length of a schema, grammar or list of choices.
        schema_depth: nesting of arrays and objects in a schema.
        schema_nodes: arrays and objects in a schema; each may cost a stack frame.
        array_items: sum over a schema of ``maxItems``, or ``minItems`` without it: each
            item becomes a symbol of the grammar.
        pattern_properties: ``patternProperties`` entries in a schema; all pairs are
            checked for overlap.
        all_of: ``allOf`` entries in a schema; unions inside them multiply.
        counted_properties: properties of an object that has ``minProperties`` or
            ``maxProperties``; grows quadratically.
        multiple_of: least common multiple of all ``multipleOf``, scaled to integers; it
            is the number of states of the automaton.
        regex_bytes: UTF-8 length of one regular expression.
        grammar_lines: lines of a Lark grammar; a chain of rules is compiled recursively.
        choices: entries of a choice.
        compile_s: seconds after which a request no longer waits for its grammar.
        compiling: grammars compiled at one time; more wait.
        pending: grammars compiled or waiting for it; more are refused as overload.
        cache_entries, cache_bytes: bounds of the cache of compiled grammars.
        stack_bytes: stack of a compiling thread; only what is used takes memory.
        initial_fuel: llguidance's bound on building the lexer, about 50,000 per ms.
        step_fuel: its bound on one mask, about 14,000 per ms.
        step_items: Earley items per mask, about 20,000 per ms.
        row_items: Earley items per position.
        lexer_states: states that one sequence may reach, 1 to 2 kB each.
        grammar_symbols: symbols in the productions.
    """

    source_bytes: int = 256 * 1024
    schema_depth: int = 64
    schema_nodes: int = 8000
    array_items: int = 8192
    pattern_properties: int = 16
    all_of: int = 64
    counted_properties: int = 64
    multiple_of: int = 10_000
    regex_bytes: int = 8192
    grammar_lines: int = 5000
    choices: int = 10_000
    compile_s: float = 10.0
    compiling: int = 2
    pending: int = 64
    cache_entries: int = 128
    cache_bytes: int = 256 * 1024 * 1024
    stack_bytes: int = 256 * 1024 * 1024
    initial_fuel: int = 400_000
    step_fuel: int = 100_000
    step_items: int = 40_000
    row_items: int = 2000
    lexer_states: int = 30_000
    grammar_symbols: int = 200_000
