"""Every field of a completion request, its prompts as the engine gets them, and its documents."""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_process import LIMIT, info_with
from test_docs import documented, parameter_row
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from engine.base import ModelInfo, TokenLogprob
from engine.detokenize import Detokenizer
from engine.fake.tokenizer import byte_tokenizer
from gateway.chat.infill import FORMATS, Infill
from gateway.chat.prompt import PromptBuilder
from gateway.chat.raw_prompt import RawPrompt, RawPrompts
from gateway.chat.tokens import TokenTexts
from gateway.errors import InvalidRequest
from gateway.protocol.chat_parameters import CHAT
from gateway.protocol.completion_logprobs import LegacyLogprobs
from gateway.protocol.completion_parameters import COMPLETION, MAX_TOTAL_TOKENS, SHARED
from gateway.protocol.completion_prompt import MAX_PROMPTS
from gateway.protocol.completion_request import (
    CompletionRequest,
    check_totals,
    read_completion_request,
)
from gateway.protocol.predict import PREDICT
from gateway.protocol.token_requests import DETOKENIZE, TOKENIZE

# Fields of chat that mean nothing here.
CHAT_ONLY = {
    "messages",
    "logprobs",  # a number here
    "echo",  # of the prompt here
    "top_logprobs",
    "max_completion_tokens",
    "max_tokens",  # with a default here
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning_effort",
    "include_reasoning",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template_kwargs",
}


def read(**fields: Any) -> CompletionRequest:
    return read_completion_request({"prompt": "hi", **copy.deepcopy(fields)})


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("hi", ["hi"]),
        ("", [""]),
        (["a", "b"], ["a", "b"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([1.0, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_every_form_of_prompt(prompt: Any, expected: Any) -> None:
    assert read(prompt=prompt).prompts == expected


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"prompt": 3}, "prompt", "invalid_type"),
        ({"prompt": {}}, "prompt", "invalid_type"),
        ({"prompt": True}, "prompt", "invalid_type"),
        ({"prompt": []}, "prompt", "invalid_value"),
        ({"prompt": [None]}, "prompt[0]", "invalid_type"),
        ({"prompt": [True]}, "prompt[0]", "invalid_type"),
        ({"prompt": [{}]}, "prompt[0]", "invalid_type"),
        ({"prompt": [[]]}, "prompt[0]", "invalid_value"),
        ({"prompt": [[[]]]}, "prompt[0][0]", "invalid_type"),
        ({"prompt": ["a", 1]}, "prompt[1]", "invalid_type"),
        ({"prompt": ["a", ["b"]]}, "prompt[1]", "invalid_type"),
        ({"prompt": ["a", None]}, "prompt[1]", "invalid_type"),
        ({"prompt": [1, "a"]}, "prompt[1]", "invalid_type"),
        ({"prompt": [1, True]}, "prompt[1]", "invalid_type"),
        ({"prompt": [1, 1.5]}, "prompt[1]", "invalid_type"),
        ({"prompt": [1, -1]}, "prompt[1]", "invalid_value"),
        ({"prompt": [1, 2**31]}, "prompt[1]", "invalid_value"),
        ({"prompt": [1, 10**30]}, "prompt[1]", "invalid_value"),
        ({"prompt": [[1], "a"]}, "prompt[1]", "invalid_type"),
        ({"prompt": [[1], 2]}, "prompt[1]", "invalid_type"),
        ({"prompt": [[1], [2, "3"]]}, "prompt[1][1]", "invalid_type"),
        ({"prompt": ["a"] * (MAX_PROMPTS + 1)}, "prompt", "invalid_value"),
        ({"prompt": [[1]] * (MAX_PROMPTS + 1)}, "prompt", "invalid_value"),
        ({"prompt": ["a"] * MAX_PROMPTS, "n": 16}, "n", "invalid_value"),
        ({"logprobs": True}, "logprobs", "invalid_type"),
        ({"logprobs": 21}, "logprobs", "invalid_value"),
        ({"logprobs": -1}, "logprobs", "invalid_value"),
        ({"logprobs": "5"}, "logprobs", "invalid_type"),
        ({"max_tokens": -1}, "max_tokens", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": "9"}, "max_tokens", "invalid_type"),
        ({"min_tokens": 17}, "min_tokens", "invalid_value"),
        ({"min_tokens": 3, "max_tokens": 2}, "min_tokens", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 2, "best_of": 3}, "best_of", "unsupported_parameter"),
        ({"best_of": 2}, "best_of", "unsupported_parameter"),
        ({"best_of": 99}, "best_of", "invalid_value"),
        ({"echo": 1}, "echo", "invalid_type"),
        ({"suffix": 1}, "suffix", "invalid_type"),
        ({"suffix": "x", "echo": True}, "suffix", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs", "invalid_value"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "invalid_value"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens", "invalid_value"),
        ({"truncation_side": "middle"}, "truncation_side", "invalid_value"),
        ({"stop": [""]}, "stop[0]", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"prompt_embeds": "AAAA"}, "prompt_embeds", "unsupported_parameter"),
        ({"priority": 3}, "priority", "unsupported_parameter"),
    ],
)
def test_bad_input_names_the_field(fields: dict[str, Any], param: str, code: str) -> None:
    error = refusal(**fields)
    assert (error.param, error.code or "invalid_value") == (param, code)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=200, deadline=None)
@given(
    prompt=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=12,
    )
)
def test_any_prompt_is_read_or_refused(prompt: Any) -> None:
    culprit = "prompt"
    try:
        request = read(prompt=prompt)
    except InvalidRequest as error:
        culprit = error.param or ""
    else:
        assert all(type(entry) is str or entry for entry in request.prompts)
    assert culprit.startswith("prompt")


def test_defaults_and_best_of() -> None:
    request = read(n=2, best_of=2)
    assert (request.n, request.max_tokens, request.logprobs, request.scored) == (
        2,
        None,
        None,
        None,
    )
    assert read(echo=True, logprobs=3, prompt_logprobs=5).scored == 5
    assert read(echo=True, logprobs=3).scored == 3
    assert read(logprobs=3).scored is None
    assert read(max_tokens=0, echo=True).max_tokens == 0


def test_every_field_of_chat_is_decided_on() -> None:
    """A field that chat honours is honoured here too, or listed as one of chat only."""
    honoured = {name for name, p in CHAT.items() if p.treatment == "honoured"}
    assert honoured - CHAT_ONLY <= set(COMPLETION)
    assert set(SHARED) <= set(CHAT)


def test_totals_are_bounded() -> None:
    check_totals(read(), MAX_TOTAL_TOKENS - 10, 10)
    with pytest.raises(InvalidRequest) as caught:
        check_totals(read(), MAX_TOTAL_TOKENS, 1)
    assert caught.value.param == "prompt"
    with pytest.raises(InvalidRequest) as caught:
        check_totals(read(logprobs=20), 10, 1_000_000)
    assert caught.value.param == "logprobs"
    with pytest.raises(InvalidRequest) as caught:
        check_totals(read(prompt_logprobs=20), 1_000_000, 10)
    assert caught.value.param == "prompt_logprobs"


def with_bos() -> ModelInfo:
    """The fake model, with a tokenizer that opens every text with a special token."""
    tokenizer = byte_tokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 256)]
    )
    return replaced(tokenizer)


def replaced(tokenizer: Tokenizer) -> ModelInfo:
    info = info_with()
    return ModelInfo(
        **{
            **{name: getattr(info, name) for name in ModelInfo.__slots__},
            "tokenizer": tokenizer,
            "vocab_size": tokenizer.get_vocab_size(),
        }
    )


def built(info: ModelInfo, **fields: Any) -> RawPrompt:
    (prompt,) = RawPrompts(PromptBuilder(info)).build(read(**fields))
    return prompt


def test_text_gets_the_models_own_special_tokens() -> None:
    assert built(with_bos(), prompt="ab").ids == [256, 97, 98]
    assert built(with_bos(), prompt="ab", add_special_tokens=False).ids == [97, 98]
    assert built(with_bos(), prompt=[97, 98]).ids == [97, 98]
    assert built(with_bos(), prompt="").ids == [256]


def test_an_echoed_prompt_is_the_text_that_was_sent() -> None:
    text = "Grüße 🦊"
    prompt = built(with_bos(), prompt=text, echo=True)
    assert prompt.text == text
    assert len(prompt.offsets) == len(prompt.ids) == 1 + len(text.encode())
    starts = [text.encode()[:i].decode(errors="ignore") for i in range(len(text.encode()))]
    assert list(prompt.offsets) == [0, *(len(start) for start in starts)]
    from_ids = built(with_bos(), prompt=prompt.ids[1:], echo=True)
    assert (from_ids.text, from_ids.offsets) == (text, prompt.offsets[1:])


def test_lengths_against_the_context(fake_info: ModelInfo) -> None:
    assert built(fake_info, prompt="x" * (LIMIT - 4)).sampling.max_tokens == 4
    assert built(fake_info).sampling.max_tokens == 16
    assert built(fake_info, prompt="x" * LIMIT, echo=True, max_tokens=0).sampling.max_tokens == 0
    for fields, param in (
        ({"prompt": "x" * LIMIT}, "prompt"),
        ({"prompt": "x" * 100_000}, "prompt"),
        ({"prompt": ["x", "x" * 100_000]}, "prompt[1]"),
        ({"prompt": [7] * (LIMIT + 1)}, "prompt"),
        ({"prompt": "x", "max_tokens": LIMIT}, "max_tokens"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            RawPrompts(PromptBuilder(fake_info)).build(read(**fields))
        assert (caught.value.param, caught.value.code) == (param, "context_length_exceeded")


def test_truncation(fake_info: ModelInfo) -> None:
    assert built(fake_info, prompt="abcdef", truncate_prompt_tokens=2).ids == [101, 102]
    cut = built(
        fake_info, prompt="abcdef", truncate_prompt_tokens=2, truncation_side="right", echo=True
    )
    assert (cut.ids, cut.text, cut.offsets) == ([97, 98], "ab", (0, 1))
    assert built(fake_info, prompt="ab", truncate_prompt_tokens=9).ids == [97, 98]
    fitted = built(fake_info, prompt="x" * 5000, truncate_prompt_tokens=-1, max_tokens=30)
    assert len(fitted.ids) == LIMIT - 30


def test_what_depends_on_the_model(fake_info: ModelInfo) -> None:
    size = fake_info.vocab_size
    for fields, param in (
        ({"prompt": [1, size]}, "prompt[1]"),
        ({"prompt": [[1], [2, 3, size]]}, "prompt[1][2]"),
        ({"prompt": ""}, "prompt"),
        ({"suffix": "x"}, "suffix"),
        ({"structured_outputs": {"regex": "a+"}}, "structured_outputs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"stop_token_ids": [size]}, "stop_token_ids"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            RawPrompts(PromptBuilder(fake_info)).build(read(**fields))
        assert caught.value.param == param
    quiet = info_with(prompt_logprobs=False)
    with pytest.raises(InvalidRequest) as caught:
        RawPrompts(PromptBuilder(quiet)).build(read(echo=True, logprobs=1))
    assert caught.value.param == "echo"
    with pytest.raises(InvalidRequest) as caught:
        RawPrompts(PromptBuilder(info_with(max_logprobs=5))).build(read(logprobs=6))
    assert caught.value.param == "logprobs"


@pytest.mark.parametrize("form", FORMATS)
def test_infill_in_each_models_own_tokens(form: Any) -> None:
    tokenizer = byte_tokenizer()
    names = [name for name in (form.prefix, form.suffix, form.middle) if name]
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    info = replaced(tokenizer)
    assert Infill(tokenizer).possible
    ids = built(info, prompt="ab", suffix="yz").ids
    pieces = [tokenizer.id_to_token(token) for token in ids]
    before, after = [form.prefix, "a", "b"], [form.suffix, "y", "z"]
    expected = [*after, *before] if form.suffix_first else [*before, *after]
    assert pieces == [*expected, *([form.middle] if form.middle else [])]
    assert built(info, prompt=[97, 98], suffix="yz").ids == ids


def sentencepiece_like() -> Tokenizer:
    """Words with a leading space in them, and bytes for everything else, as in Llama 2."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581a", "\u2581be", "c"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "ids", "labels", "offsets"),
    [
        (
            byte_tokenizer(),
            list("aé🦊b".encode()),
            ["a", "bytes:\\xc3", "bytes:\\xa9", *(f"bytes:\\x{b:02x}" for b in "🦊".encode()), "b"],
            [0, 1, 1, 2, 2, 2, 2, 3],
        ),
        (
            sentencepiece_like(),
            [257, 258, 259, 1 + 0xC3, 1 + 0xA9, 259],
            [" a", " be", "c", "bytes:\\xc3", "bytes:\\xa9", "c"],
            [0, 1, 4, 5, 5, 6],
        ),
    ],
    ids=["byte level", "sentencepiece"],
)
def test_offsets_are_those_of_the_decoded_text(
    tokenizer: Tokenizer, ids: list[int], labels: list[str], offsets: list[int]
) -> None:
    decoder = Detokenizer(tokenizer).decoder(skip_special_tokens=True)
    writer = LegacyLogprobs(TokenTexts(tokenizer), decoder, alternatives=1, as_ids=False)
    entries = [TokenLogprob(token, -1.0, ((65, -0.5), (66, -0.7))) for token in ids]
    arrays, rest = writer.output(entries[:2]), writer.output(entries[2:])
    assert arrays["tokens"] + rest["tokens"] == labels
    assert arrays["text_offset"] + rest["text_offset"] == offsets
    assert len(tokenizer.decode(ids)) == offsets[-1] + 1
    assert arrays["token_logprobs"] == [-1.0, -1.0]
    # One alternative was asked for; the token itself is always there.
    assert all(len(top) == 2 and -1.0 in top.values() for top in arrays["top_logprobs"])


def test_tokens_as_ids_and_impossible_tokens() -> None:
    tokenizer = byte_tokenizer()
    decoder = Detokenizer(tokenizer).decoder(skip_special_tokens=True)
    writer = LegacyLogprobs(TokenTexts(tokenizer), decoder, alternatives=2, as_ids=True)
    entry = TokenLogprob(97, float("-inf"), ((98, -0.5), (97, -0.7), (99, -1.0)))
    arrays = writer.output([entry])
    assert arrays["tokens"] == ["token_id:97"]
    assert arrays["token_logprobs"] == [-9999.0]
    assert arrays["top_logprobs"] == [{"token_id:98": -0.5, "token_id:97": -0.7}]


def test_every_parameter_is_documented() -> None:
    for file, table in (
        ("completions.md", COMPLETION),
        ("tokens.md", TOKENIZE),
        ("tokens.md", DETOKENIZE),
        ("predict.md", PREDICT),
    ):
        rows = [parameter_row(parameter) for parameter in table.values()]
        assert documented(file, "| `") >= set(rows), "\n" + "\n".join(rows)
