"""Incremental text equals text decoded at once, whatever the cuts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_llama import byte_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from engine.detokenize import Detokenizer, OutputText, StopMatcher, WindowDecoder

BYTE_LEVEL = byte_tokenizer(384)
BEYOND_THE_TOKENIZER = 500


def sentencepiece_like() -> Tokenizer:
    """Words marked with U+2581 and bytes for what the vocabulary lacks, as in Llama 2."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [chr(code) for code in range(0x61, 0x7B)] + ["\u2581"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=[],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in pieces[:3]])
    return tokenizer


SENTENCEPIECE = sentencepiece_like()


def streamed(tokenizer: Tokenizer, ids: list[int], *, skip: bool) -> str:
    decoder = Detokenizer(tokenizer).decoder(skip_special_tokens=skip)
    return "".join(decoder.push(token) for token in ids) + decoder.flush()


@given(st.lists(st.integers(0, 383)), st.booleans())
def test_byte_level_equals_decoding_at_once(ids: list[int], skip: bool) -> None:
    assert streamed(BYTE_LEVEL, ids, skip=skip) == BYTE_LEVEL.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, SENTENCEPIECE], ids=["bytes", "pieces"])
def test_special_tokens_that_are_asked_for_stay(tokenizer: Tokenizer) -> None:
    added = tokenizer.get_added_tokens_decoder()
    special = [i for i, token in added.items() if token.special]
    decoder = Detokenizer(tokenizer).decoder(skip_special_tokens=True, shown=special[-1:])
    letters = tokenizer.encode("ab", add_special_tokens=False).ids
    shown = "".join(decoder.push(token) for token in [*special, *letters]) + decoder.flush()
    assert shown.replace(" ", "") == added[special[-1]].content + "ab"


@given(st.text())
def test_characters_are_never_split(text: str) -> None:
    decoder = Detokenizer(BYTE_LEVEL).decoder(skip_special_tokens=True)
    shown = ""
    for token in BYTE_LEVEL.encode(text, add_special_tokens=False).ids:
        shown += decoder.push(token)
        assert text.startswith(shown)
    assert shown == text


def test_a_token_beyond_the_tokenizer_is_no_text() -> None:
    assert streamed(BYTE_LEVEL, [65, BEYOND_THE_TOKENIZER, 66], skip=True) == "AB"


def test_other_tokenizers_take_the_window() -> None:
    decoder = Detokenizer(SENTENCEPIECE).decoder(skip_special_tokens=True)
    assert isinstance(decoder, WindowDecoder)


@given(st.text(alphabet="abc xyz é漢🎉"))
def test_window_equals_decoding_at_once(text: str) -> None:
    ids = SENTENCEPIECE.encode(text, add_special_tokens=False).ids
    whole = SENTENCEPIECE.decode(ids)
    decoder = Detokenizer(SENTENCEPIECE).decoder(skip_special_tokens=True)
    shown = ""
    for token in ids:
        shown += decoder.push(token)
        assert whole.startswith(shown)
    assert shown + decoder.flush() == whole


def test_window_does_not_grow_on_bytes_that_are_no_text() -> None:
    decoder = WindowDecoder(SENTENCEPIECE, frozenset())
    for _ in range(200):
        decoder.push(3 + 0xFF)
        assert len(decoder._window) <= 2 * decoder._LONGEST_OPEN


def first_completed(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Character by character: the text before the stop string that is complete first."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return text[: end - len(stop)], stop
    return text, None


ab_text = st.text(alphabet="ab\n", max_size=40)
stop_strings = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), min_size=1, max_size=4)


@given(ab_text, stop_strings, st.lists(st.integers(1, 5)))
def test_stop_matching_does_not_depend_on_the_cuts(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    expected, expected_stop = first_completed(text, stops)
    matcher = StopMatcher(tuple(stops), include=False)
    shown, stopped, rest = "", None, text
    for size in [*cuts, len(text)]:
        part, rest = rest[:size], rest[size:]
        new, stopped = matcher.push(part)
        shown += new
        assert expected.startswith(shown)
        if stopped:
            break
    if stopped is None:
        shown += matcher.flush()
    assert (shown, stopped) == (expected, expected_stop)


@given(ab_text, stop_strings, st.integers(0, 40))
def test_unarmed_stops_do_not_count(text: str, stops: list[str], armed_from: int) -> None:
    matcher = StopMatcher(tuple(stops), include=False)
    shown, stopped = "", None
    for end, char in enumerate(text, start=1):
        new, stopped = matcher.push(char, armed=end > armed_from)
        shown += new
        if stopped:
            assert end > armed_from
            assert text[:end] == shown + stopped
            return
    assert shown + matcher.flush() == text


def test_only_what_may_become_a_stop_is_held_back() -> None:
    matcher = StopMatcher(("</end>",), include=False)
    assert matcher.push("a < b </e") == ("a < b ", None)
    assert matcher.push("m>") == ("</em>", None)
    assert matcher.push("</end> more") == ("", "</end>")


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_over_several_tokens(include: bool) -> None:
    decoder = Detokenizer(BYTE_LEVEL).decoder(skip_special_tokens=True)
    output = OutputText(decoder, ("é!",), include=include)
    ids = BYTE_LEVEL.encode("né! tail").ids
    shown = ""
    for token in ids:
        shown += output.push(token)
        if output.stopped_by:
            break
    assert output.stopped_by == "é!"
    assert shown == ("né!" if include else "n")
