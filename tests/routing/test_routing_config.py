"""gateway.yaml: what it may say, and what is said of its faults."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from gateway.routing.config import KINDS, LocalSpec, RoutingConfig
from gateway.routing.discovery import DiscoveryError, by_dns, from_file
from gateway.routing.load import ConfigError, config_of_text, routing_config
from gateway.settings import Settings

ENVIRON = {"KEY": "sk-planted-secret"}
REMOTE = "base_url: http://10.0.0.7:8000/v1"


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[call-arg]


def read(text: str, **values: Any) -> RoutingConfig:
    return config_of_text(text, settings(engine="fake", **values), ENVIRON)


def faults(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


def one(target: str, more: str = "") -> str:
    return f"models:\n- name: m\n  targets:\n  - {{{target}}}\n{more}"


def test_the_environment_alone_makes_the_same_kind_of_value() -> None:
    own = settings(
        engine="fake",
        model_name="/models/a",
        replicas=2,
        served_model_name="a, b",
        routing_policy="prefix",
        models='[{"model_name": "second"}]',
    )
    config = routing_config(own)
    first, second = config.models
    assert (first.name, first.aliases, first.policy) == ("a", ("b",), "prefix")
    assert first.targets == (LocalSpec("a", own.engine_config(), 2),)
    assert second.names == ("second",)
    assert config.digest == ""
    text = (
        "models:\n- {name: a, aliases: [b], policy: prefix, targets: "
        "[{name: a, replicas: 2, model_name: /models/a}]}"
    )
    assert config_of_text(text, settings(engine="fake"), {}).models[0] == first


def test_a_remote_target() -> None:
    text = one(
        f"{REMOTE}, kind: vllm, model: up, api_key: '${{KEY}}', weight: 3, headers: {{x-a: b}},"
        " timeouts: {idle: 7}, breaker: {failures: 9}, forward_headers: [X-User]"
    )
    config = read(text)
    (target,) = config.models[0].remotes
    assert target.apis == KINDS["vllm"].apis
    assert target.health.path == "/health"
    assert target.api_key is not None
    assert target.api_key.get_secret_value() == ENVIRON["KEY"]
    assert (target.weight, target.timeouts.idle, target.breaker.failures) == (3, 7, 9)
    assert target.forward_headers == ("x-user",)
    assert ENVIRON["KEY"] not in repr(config)
    assert len(config.digest) == 64
    assert read(text + "\n# a comment").digest != config.digest
    with pytest.raises(AttributeError):
        config.models[0].name = "other"  # type: ignore[misc]


def test_targets_here_take_the_settings_of_one_model() -> None:
    config = read(
        "models:\n- {name: m, aliases: [n], targets: [{model_name: bundled, max_num_seqs: 3}]}",
        max_model_len=99,
    )
    (target,) = config.models[0].locals
    assert target.engine.names == ("m", "n")
    assert (target.engine.max_num_seqs, target.engine.max_model_len) == (3, 99)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: the file is empty"),
        ("models: [", "line 1: not valid YAML"),
        ("models:\n- name: a\n  name: b\n", "line 3: 'name' stands twice"),
        ("modells: []", "yaml:1: modells: there is no such field; did you mean 'models'?"),
        ("models: []", "yaml:1: models: List should have at least 1 item"),
        (one("base_url: ftp://x"), "yaml:4: models[0].targets[0].base_url: a URL such as"),
        (one("base_url: 'http://u:p@x/v1'"), "no password in a URL"),
        (one("base_url: 'http://x:99999/v1'"), "the port is not a number up to 65535"),
        (one(f"{REMOTE}, weight: '3'"), "models[0].targets[0].weight: Input should be a valid"),
        (one(f"{REMOTE}, weight: 0"), "weight: Input should be greater than 0"),
        (one(f"{REMOTE}, wieght: 1"), "there is no such field; did you mean 'weight'?"),
        (one(f"{REMOTE}, timeouts: {{idel: 1}}"), "timeouts.idel: there is no such field; did you"),
        (one(f"{REMOTE}, api_key: sk-literal"), "write ${NAME} and set NAME in the environment"),
        (one(f"{REMOTE}, api_key: '${{NOPE}}'"), "api_key: ${NOPE} is not set; export NOPE"),
        (one(f"{REMOTE}, headers: {{x-api-token: abc}}"), "this looks like a secret"),
        (one(f"{REMOTE}, carry_on: true"), "carry_on needs servers of kind gateway or vllm"),
        (one(f"{REMOTE}, headers: {{'bad name': x}}"), "not the name of an HTTP header"),
        (one(f"{REMOTE}, forward_headers: [Authorization]"), "'authorization' is never passed on"),
        (one(f"{REMOTE}, base_urls: [http://x/v1]"), "one of 'base_url' and 'base_urls'"),
        (one("discovery: {kind: file}"), "'file' is needed with kind: file"),
        (one("base_urls: [http://x], discovery: {kind: dns}"), "discovery by DNS needs 'base_url'"),
        (
            one("model_nam: x"),
            "yaml:4: models[0].targets[0].model_nam: there is no such field; did",
        ),
        (one("max_num_seqs: lots"), "models[0].targets[0].max_num_seqs: Input should be a valid"),
        (one("weight: -1"), "a number above 0 is needed"),
        (one(REMOTE, "  policy: fastest\n"), "yaml:5: models[0].policy: Input should be"),
        (
            one(REMOTE, "  fallbacks: {down: [x]}\n"),
            "yaml:5: models[0].fallbacks.down[0]: there is",
        ),
        (one(REMOTE, "  fallbacks: {down: [m]}\n"), "a model cannot refer to itself"),
        (one(REMOTE, "  fallbacks: {dwon: [x]}\n"), "models[0].fallbacks.dwon"),
        (one(REMOTE, "  shadow: {to: n}\n- {name: n, targets: [{}]}\n"), "runs in this process"),
        (one("", "  hedge: {after: 1}\n"), "yaml:5: models[0].hedge: only servers elsewhere"),
        (one(REMOTE, "  hedge: {}\n"), "yaml:5: models[0].hedge.after: this field is missing"),
        (one(REMOTE, "  hedge: {after: 1, ratio: 2}\n"), "models[0].hedge.ratio: Input should"),
        (one(REMOTE, "- name: m\n  targets: [{}]\n"), "yaml:5: models[1].name: 'm' already is a"),
        (one(REMOTE, "- name: n\n"), "yaml:5: models[1]: a model has either 'targets' or 'split'"),
        (
            f"models:\n- name: m\n  targets:\n  - {{{REMOTE}, name: x}}\n  - {{{REMOTE}, name: x}}",
            "yaml:5: models[0].targets[1].name: two targets are called 'x'",
        ),
        (
            one(REMOTE, "- name: n\n  split: {shares: [{model: m, weight: 0}]}\n"),
            "every weight is 0",
        ),
        (
            one(REMOTE, "- {name: n, split: {sticky: user, shares: [{model: m, weight: 1}]}}\n"),
            "use key, none or header:NAME",
        ),
    ],
)
def test_every_fault_has_its_line_and_its_fix(text: str, said: str) -> None:
    assert said in faults(text)


def test_all_faults_are_told_at_once_and_no_secret_with_them() -> None:
    told = faults(one(f"{REMOTE}, api_key: sk-literal, weight: x", "  policy: y\n  polcy: z\n"))
    assert len(told.splitlines()) == 2
    told = faults(one(f"{REMOTE}, api_key: sk-literal, weight: x"))
    assert len(told.splitlines()) == 2
    assert "sk-literal" not in told


def test_a_file_takes_the_place_of_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(one(REMOTE))
    assert routing_config(settings(config_file=path)).models[0].name == "m"
    with pytest.raises(ConfigError, match="CONFIG_FILE and MODEL_NAME are both set"):
        routing_config(settings(config_file=path, model_name="bundled"))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        routing_config(settings(config_file=tmp_path / "missing.yaml"))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="it is not UTF-8"):
        routing_config(settings(config_file=path))


def test_an_endless_document_is_refused() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for level in range(12):
        bomb += f"b{level}: &{chr(98 + level)} [{','.join([f'*{chr(97 + level)}'] * 9)}]\n"
    assert "too large or too deep" in faults(bomb)


def test_addresses_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "targets"
    path.write_text("# the fleet\nhttp://10.0.0.1:8000/v1\n\nhttps://b.example # spare\n")
    a, b = from_file(path)
    assert (a.host, a.port, a.tls, a.path, a.authority) == (
        "10.0.0.1",
        8000,
        False,
        "/v1",
        "10.0.0.1:8000",
    )
    assert (b.port, b.tls, b.authority) == (443, True, "b.example")
    path.write_text("http://ok/v1\nnot a url\n")
    with pytest.raises(DiscoveryError, match="targets:2: not a base URL"):
        from_file(path)
    with pytest.raises(DiscoveryError, match="cannot be read"):
        from_file(tmp_path / "missing")


async def test_addresses_by_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await by_dns("http://localhost:81/v1")
    assert {(a.port, a.server_name, a.authority) for a in found} == {
        (81, "localhost", "localhost:81")
    }
    assert "127.0.0.1" in {address.host for address in found}

    def fails(*_: Any, **__: Any) -> Any:
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(DiscoveryError, match="does not resolve"):
        await by_dns("http://nowhere.invalid/v1")
