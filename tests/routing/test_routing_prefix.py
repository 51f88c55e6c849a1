"""Which prompts count as beginning alike, and where they go."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from chaos_upstream import ChaosUpstream
from routing_calls import ask
from server_process import ServerProcess

from engine.fake.tokenizer import CHAT_TEMPLATE, byte_tokenizer
from gateway.control.pool import Pool
from gateway.relay.outgoing import Incoming
from gateway.routing.ask import Ask, prefix_of
from gateway.routing.config import Api, ModelSpec
from gateway.routing.load import ConfigError, config_of_text
from gateway.routing.policies import choose
from gateway.routing.prefix_rules import PrefixRules
from gateway.routing.prefix_tokens import CHARS_PER_TOKEN, hash_of, prefix_for
from gateway.settings import load_settings

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {}}}


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token per byte, with a chat template beside it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


def pool_with(tokenizer: Path | str | None, tokens: int = 64, block: int = 16) -> Pool:
    named = None if tokenizer is None else str(tokenizer)
    rules = PrefixRules(tokens, block, named, chars=64)
    return Pool([], spec=ModelSpec("m", policy="prefix", prefix=rules))


async def key(pool: Pool, document: dict[str, Any], api: Api = "chat") -> str:
    body = json.dumps(document).encode()
    return await prefix_for(pool, Incoming(api, body, document, {}, "r", None))


def chat(system: str, question: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return {"model": "m", "messages": messages}


async def test_prompts_that_share_their_first_tokens_share_their_key(tokenizer: Path) -> None:
    pool = pool_with(tokenizer)
    rules = "You answer in one sentence, and never without a source for it. "
    first = await key(pool, chat(rules, "What is a token?"))
    assert first.startswith("tokens:")
    assert await key(pool, chat(rules, "And what is a block of them?")) == first
    assert await key(pool, chat(rules.replace("one", "two"), "What is a token?")) != first
    # The template puts the same tokens first, whatever the protocol calls them.
    blocks = [{"type": "text", "text": rules}]
    told = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    assert await key(pool, {**told, "system": blocks}, "messages") == first
    asked = {"model": "m", "instructions": rules, "input": "Anything else?"}
    assert await key(pool, asked, "responses") == first
    assert await key(pool, {**chat(rules, "x"), "temperature": 0.3, "n": 2}) == first


async def test_whole_blocks_count(tokenizer: Path) -> None:
    pool = pool_with(tokenizer)
    assert await key(pool, {"prompt": "a" * 33}, "completions") == await key(
        pool, {"prompt": "a" * 32 + "bcd"}, "completions"
    ), "32 bytes are two blocks, and the third is not whole"
    assert await key(pool, {"prompt": "a" * 33}, "completions") != await key(
        pool, {"prompt": "a" * 48}, "completions"
    )
    ids = list(b"a" * 40)
    text = await key(pool, {"prompt": "a" * 40}, "completions")
    assert await key(pool, {"prompt": ids}, "completions") == text
    assert await key(pool, {"prompt": [ids, [1]]}, "completions") == text
    assert hash_of([1, 2], PrefixRules()) != hash_of([1, 3], PrefixRules())
    assert hash_of([], PrefixRules()) == ""


async def test_a_large_prompt_is_the_same_prompt(tokenizer: Path) -> None:
    """It is tokenised in a thread, and no further than need be."""
    pool = pool_with(tokenizer)
    head = "The same long introduction, to the letter, for everybody who asks. "
    small = await key(pool, chat(head, "x"))
    assert await key(pool, chat(head, "y" * 64 * CHARS_PER_TOKEN * 8)) == small


@pytest.mark.parametrize(
    ("document", "api"),
    [
        (chat("s" * 64, "x") | {"temperature": "hot"}, "chat"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "chat"),
        ({"model": "m", "input": "x" * 80}, "embeddings"),
        ({"messages": [{"role": "user", "content": "x"}], "tools": [WEATHER, 7]}, "chat"),
    ],
)
async def test_what_cannot_be_tokenised_goes_by_its_characters(
    tokenizer: Path, document: dict[str, Any], api: Api
) -> None:
    assert await key(pool_with(tokenizer), document, api) == prefix_of(document, 64) != ""


async def test_without_a_tokenizer_characters_count(tmp_path: Path) -> None:
    document = chat("s" * 64, "x")
    assert await key(pool_with(None), document) == prefix_of(document, 64)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert await key(pool_with(tmp_path), document) == prefix_of(document, 64)
    byte_tokenizer().save(str(tmp_path / "other.json"))  # no chat template beside it
    named = pool_with(tmp_path / "other.json")
    assert await key(named, document) == prefix_of(document, 64)
    assert (await key(named, {"prompt": "x" * 40}, "completions")).startswith("tokens:")


@dataclass
class Place:
    name: str
    weight: float = 1.0
    tokens: int = 0
    outstanding: int = 0


async def test_loads_are_bounded_however_popular_a_prefix_is(tokenizer: Path) -> None:
    """Mirrokni, Thorup and Zadimoghaddam's bound, request by request."""
    pool, draw = pool_with(tokenizer), random.Random(5)
    spec = replace(pool.spec, load_factor=1.25)
    places = [Place(name) for name in "abcd"]
    hot = await key(pool, chat("The one prompt that everybody sends. " * 4, "x"))
    for number in range(1, 201):
        found = hot if number % 10 else await key(pool, chat(f"{number:064}", "x"))
        place, _ = choose(spec, places, Ask("chat", "m", prefix=found), draw)
        place.outstanding += 1
        assert place.outstanding <= 1.25 * number / 4 + 1


def test_requests_go_where_their_tokens_are(
    start: Callable[..., ServerProcess], upstream: ChaosUpstream, tokenizer: Path
) -> None:
    urls = [f"{{base_url: '{upstream.url(f'ok-p{n}')}', name: p{n}}}" for n in range(4)]
    targets = ", ".join(urls)
    text = f"""
models:
- {{name: own, policy: prefix, load_factor: 100, tokenizer: tok, targets: [{targets}]}}
- name: mixed
  policy: prefix
  load_factor: 100
  targets: [{targets}, {{engine: fake, name: here, weight: 0.0001}}]
- {{name: by-chars, policy: prefix, prefix_chars: 16, load_factor: 100, targets: [{targets}]}}
"""
    server = start(text.replace("tok,", f"{tokenizer},")).wait_ready()

    def target(model: str, document: dict[str, Any]) -> str:
        reply = ask(server, model, messages=document["messages"])
        assert reply.headers["x-gateway-route"] == "prefix"
        return str(reply.headers["x-gateway-target"])

    for model in ("own", "mixed", "by-chars"):
        heads = [f"Introduction number {n}, " + "as long as it has to be. " * 16 for n in range(12)]
        found = [target(model, chat(head, "a")) for head in heads]
        if model != "by-chars":
            assert len(Counter(found)) > 1
        assert [target(model, chat(head, "and b " * 900)) for head in heads] == found
    # Sixteen characters are the role and the first word, so these all go to one server.
    assert len({target("by-chars", chat(head, "x")) for head in heads}) == 1


def test_a_tokenizer_that_is_not_there_stops_the_start(tmp_path: Path, tokenizer: Path) -> None:
    shutil.copy(tokenizer / "tokenizer.json", tmp_path)
    where = str(tmp_path / "gateway.yaml")

    def read(named: str) -> str | None:
        text = f"models: [{{name: m, tokenizer: {named}, targets: [{{base_url: 'http://h/v1'}}]}}]"
        return config_of_text(text, load_settings(), {}, where).models[0].prefix.tokenizer

    assert read(".") == str(tmp_path)
    assert read("tokenizer.json") == str(tmp_path / "tokenizer.json")
    assert read("bundled") == "bundled"
    assert read("acme/model") == "acme/model"
    with pytest.raises(ConfigError, match=r"models\[0\].tokenizer: there is no tokenizer.json"):
        read("elsewhere")


class Hub(BaseHTTPRequestHandler):
    """Serves the files of acme/model as the hub does; everything else is missing."""

    folder: Path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        file = self.folder / self.path.removeprefix("/acme/model/resolve/main/")
        found = self.path.startswith("/acme/model/resolve/main/") and file.is_file()
        body = file.read_bytes() if found else b""
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", f'"{file.name}"')
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


async def test_a_tokenizer_comes_from_the_hub(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    Hub.folder = tokenizer
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        document, limit = chat("s" * 64, "x"), time.monotonic() + 60
        # Whoever asks before it has come is not kept waiting for long.
        while (found := await key(pool_with("acme/model"), document)) == prefix_of(document, 64):
            assert time.monotonic() < limit
        assert found == await key(pool_with(tokenizer), document)
        assert await key(pool_with("acme/other"), document) == prefix_of(document, 64)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
