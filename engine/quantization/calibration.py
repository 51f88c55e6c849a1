"""The inputs that ranges are taken from and results are compared on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.onnx.prepared import TOKENIZER_NAME, Manifest
from engine.quantization.report import Options, QuantizationError
from engine.quantization.sources import Source, read_manifest, read_object
from engine.quantization.synthetic import Feeds, GraphInput, graph_inputs, sized, synthetic

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LONGEST_PROMPT = 256  # tokens; ranges settle long before, and histograms hold every value
SENTENCES = (
    "Hello! Who are you and what can you do for me?",
    "What is 17 plus 25? Answer with the number only.",
    "Name three fruits that start with the letter b.",
    "The river rose during the night, and by morning the lower fields stood under water.",
    "Write the word lantern backwards, one letter at a time.",
    "Give me a JSON object with the keys name and age for a woman called Ada, 36 years old.",
    "Which of these is the largest: 512, 4096, 2048 or 64?",
    "What is the capital of Japan, and which sea lies to its west?",
    "A train leaves at 9:40 and takes 2 hours and 35 minutes. When does it arrive?",
    "Remember that my dog is called Rufus. What is my dog called?",
    "Explain in one sentence why the sky is blue.",
    "def area(radius):\n    return 3.14159 * radius ** 2",
    "List the days of the week in reverse order.",
    "Thank you, that was very helpful. Goodbye!",
    "Translate into German: the window is open and it is raining.",
    "How many minutes are there in a day and a half?",
)


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs, what they are for people, and whether a person chose them."""

    feeds: list[Feeds]
    text: str
    given: bool


def samples(source: Source, options: Options) -> Samples:
    """The inputs that ``options`` ask for; raises QuantizationError."""
    given = options.calibration
    if source.kind == "decoder":
        return _prompt_samples(source, given, options)
    inputs = graph_inputs(source.graph)
    if given is None:
        rng = np.random.default_rng(options.seed)
        count = min(options.samples, 16)
        feeds = [synthetic(inputs, options.batch, options.dims, rng) for _ in range(count)]
        return Samples(feeds, f"{count} synthetic inputs", given=False)
    if not given.exists():
        raise QuantizationError(f"there is no {given}: give calibration data as .npz or .npy")
    files = sorted(given.glob("*.np[yz]")) if given.is_dir() else [given]
    if not files:
        raise QuantizationError(f"{given} holds no .npz or .npy files")
    feeds = []
    for file in files[: options.samples]:
        feeds += read_arrays(file, inputs, options)
    feeds = feeds[: options.samples]
    return Samples(feeds, f"{len(feeds)} inputs of {given.name}", given=True)


def read_arrays(file: Path, inputs: list[GraphInput], options: Options) -> list[Feeds]:
    """The inputs in a file, checked against the graph and cut into batches.

    An ``.npz`` has one array per input; an ``.npy`` is that of the only input. The first axis is
    that of samples.
    """
    if file.suffix not in (".npy", ".npz"):
        raise QuantizationError(
            f"{file} is not a .npz or .npy file, which calibrating an ONNX graph needs: one array "
            f"per input ({', '.join(value.name for value in inputs)})"
        )
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                arrays = dict(archive)
        else:
            arrays = {inputs[0].name: np.load(file, allow_pickle=False)}
    except (OSError, ValueError, EOFError) as error:
        raise QuantizationError(f"{file} cannot be read ({error}): save it with numpy") from error
    wanted = {value.name for value in inputs}
    if arrays.keys() != wanted:
        raise QuantizationError(
            f"{file} holds {', '.join(sorted(arrays)) or 'nothing'} and the graph's inputs are "
            f"{', '.join(sorted(wanted))}: save one array per input"
        )
    for value in inputs:
        _check_array(file, value, arrays[value.name])
    rows = min(len(arrays[value.name]) for value in inputs)
    if not rows:
        raise QuantizationError(f"{file} holds no samples")
    fixed = [value.shape[0] for value in inputs if isinstance(value.shape[0], int)]
    step = fixed[0] if fixed else options.batch
    starts = range(0, max(rows - step, 0) + 1, step) if fixed else range(0, rows, step)
    return [
        {
            value.name: np.ascontiguousarray(
                arrays[value.name][at : at + step].astype(value.dtype, copy=False)
            )
            for value in inputs
        }
        for at in starts
    ]


def _check_array(file: Path, value: GraphInput, array: Any) -> None:
    fits = array.ndim == len(value.shape) and all(
        not isinstance(size, int) or axis == 0 or size == array.shape[axis]
        for axis, size in enumerate(value.shape)
    )
    if not fits or not value.shape:
        raise QuantizationError(
            f"{file}: {value.name} has shape {list(array.shape)} and the graph wants "
            f"{[size or '?' for size in value.shape]}"
        )
    if value.rows is not None and array.size and int(array.max()) >= value.rows:
        raise QuantizationError(
            f"{file}: {value.name} reaches {int(array.max())} and chooses among {value.rows} rows"
        )


def _prompt_samples(source: Source, given: Path | None, options: Options) -> Samples:
    from tokenizers import Tokenizer

    assert source.folder is not None
    manifest = read_manifest(source.folder)
    tokenizer = Tokenizer.from_file(str(source.folder / TOKENIZER_NAME))
    render = chat_renderer(source.folder)
    if given is None:
        texts = [render([{"role": "user", "content": text}]) or text for text in SENTENCES]
    else:
        texts = list(read_prompts(given, render))
    feeds = []
    for text in texts[: options.samples]:
        tokens = _encode(tokenizer, text)[: min(LONGEST_PROMPT, manifest.max_model_len)]
        if tokens:
            feeds.append(decoder_feeds(manifest, tokens))
    if not feeds:
        raise QuantizationError(f"{given} holds no prompts")
    where = "built-in prompts" if given is None else f"prompts of {given.name}"
    return Samples(feeds, f"{len(feeds)} {where}", given=given is not None)


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def decoder_feeds(manifest: Manifest, tokens: list[int]) -> Feeds:
    """One prefill from nothing, in serving form, with logits at every position."""
    count = len(tokens)
    empty = np.zeros((1, manifest.num_kv_heads, count, manifest.head_dim), np.float32)
    feeds: Feeds = {
        f"past_key_values.{layer}.{part}": empty
        for layer in range(manifest.num_layers)
        for part in ("key", "value")
    }
    feeds["input_ids"] = np.array([tokens], np.int64)
    feeds["seqlens_k"] = np.array([count - 1], np.int32)
    feeds["total_sequence_length"] = np.array(count, np.int32)
    feeds["logit_idx"] = np.arange(count, dtype=np.int64)
    return feeds


Render = Callable[[list[dict[str, Any]]], str | None]


def chat_renderer(folder: Path) -> Render:
    """Messages as the model's chat template writes them; None where there is no template."""
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    template = file.read_text(encoding="utf-8") if file.is_file() else None
    settings = read_object(config) if config.is_file() else {}
    if template is None and isinstance(settings.get("chat_template"), str):
        template = settings["chat_template"]
    if template is None:
        return lambda messages: None
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
        autoescape=False,
    )
    tokens = {name: settings.get(name) for name in ("bos_token", "eos_token")}
    tokens = {name: value if isinstance(value, str) else "" for name, value in tokens.items()}
    compiled = environment.from_string(template)

    def render(messages: list[dict[str, Any]]) -> str | None:
        try:
            return compiled.render(messages=messages, add_generation_prompt=True, **tokens)
        except TemplateError:
            return None

    return render


def read_prompts(file: Path, render: Render) -> Iterator[str]:
    """The prompts of a JSONL: text, or objects with ``prompt``, ``text`` or ``messages``."""
    wanted = (
        'a decoder is calibrated with a JSONL of prompts: "text", {"prompt": ...}, {"text": ...} '
        'or {"messages": [...]} per line'
    )
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise QuantizationError(f"{file} cannot be read ({error}): {wanted}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise QuantizationError(f"{file}, line {number}, is not JSON: {wanted}") from error
        text = value
        if isinstance(value, dict):
            text = value.get("prompt", value.get("text"))
            if isinstance(value.get("messages"), list):
                text = render(value["messages"])
        if not isinstance(text, str):
            raise QuantizationError(f"{file}, line {number}, holds no prompt: {wanted}")
        yield text


def check_shapes(source: Source, options: Options) -> None:
    """Raise QuantizationError for a graph whose open dimensions have no size yet."""
    if source.kind == "graph" and options.calibration is None:
        sized(graph_inputs(source.graph), options.batch, options.dims)
