"""Stored keys against a running server: noticed at once, held to their rights, never shown."""

import json

import anthropic
import openai
import pytest
from keys_help import (
    ADMIN_KEY,
    ENV_KEY,
    OPERATOR,
    SLOW,
    admin_of,
    command,
    http,
    key_server,
    make,
    sdk,
    status,
)
from server_process import MESSAGES, NewServer, ServerProcess


@pytest.fixture
def server(shared_server: NewServer) -> ServerProcess:
    return key_server(shared_server)


def test_the_server_notices_what_the_command_line_does(server: ServerProcess) -> None:
    data = server.folder / "data"
    made = command(data, "create")
    server.wait_for(lambda: status(server, made["key"]) == 200, "the new key to work")
    rotated = command(data, "rotate", made["id"], "--grace", "0")
    server.wait_for(lambda: status(server, rotated["key"]) == 200, "the new secret to work")
    assert status(server, made["key"]) == 401
    command(data, "revoke", made["id"])
    server.wait_for(lambda: status(server, rotated["key"]) == 401, "the key to end")
    assert status(server, ENV_KEY) == 200


def test_serving_goes_on_while_the_store_is_away(server: ServerProcess) -> None:
    _, key = make(server)
    data = server.folder / "data"
    files = [path for path in data.iterdir() if path.name.startswith("keys.sqlite")]
    try:
        for path in files:
            path.rename(path.with_name(path.name + ".away"))
        with http(server, ADMIN_KEY) as client:
            reply = client.post("/admin/keys", json={})
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "storage_unavailable"
        assert status(server, key) == 200
    finally:
        for path in files:
            path.with_name(path.name + ".away").rename(path)
    _, later = make(server)
    assert status(server, later) == status(server, key) == 200


def test_an_expired_key_is_refused(server: ServerProcess) -> None:
    _, key = make(server, expires_in_s=1)
    server.wait_for(lambda: status(server, key) == 401, "the key to expire")
    with pytest.raises(openai.AuthenticationError, match="expired"):
        sdk(server, key).models.list()


def test_a_key_sees_its_own_models_only(server: ServerProcess) -> None:
    key_id, key = make(server, rights={"models": ["nickname", "never"]})
    client = sdk(server, key)
    assert [model.id for model in client.models.list()] == ["nickname"]
    assert client.models.retrieve("nickname").id == "nickname"
    for unseen in ("second", "first"):
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(unseen)
    answer = client.chat.completions.create(model="nickname", messages=MESSAGES, max_tokens=4)
    assert answer.choices[0].message.content
    texts = []
    for refused in ("second", "absent"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model=refused, messages=MESSAGES)
        assert caught.value.code == "model_not_found"
        texts.append(str(caught.value.message).replace(refused, "NAME"))
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model=refused, prompt="x")
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model=refused, input="x")
    assert texts[0] == texts[1]
    assert "second" not in texts[0]
    with http(server, key) as plain:
        assert plain.post("/tokenize", json={"model": "second", "prompt": "x"}).status_code == 404
        assert [engine["id"] for engine in plain.get("/version").json()["engines"]] == ["first"]
    with http(server, ADMIN_KEY) as admin:
        admin.patch(f"/admin/keys/{key_id}", json={"rights": {"models": None}}).raise_for_status()
    assert {model.id for model in client.models.list()} >= {"first", "nickname", "second"}


def test_a_key_uses_its_own_endpoints_only(server: ServerProcess) -> None:
    _, key = make(server, rights={"endpoints": ["chat"]})
    client = sdk(server, key)
    client.chat.completions.create(model="first", messages=MESSAGES, max_tokens=2)
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.embeddings.create(model="first", input="x")
    assert caught.value.code == "endpoint_not_allowed"
    with http(server, key) as plain:
        for path in ("/metrics", "/v1/files", "/v1/batches", "/v1/models", "/admin/keys"):
            assert plain.get(path).status_code == 403, path
        for path in ("/version", "/openapi.json"):
            assert plain.get(path).status_code == 200, path
        assert plain.get("/nope").status_code == 404
        assert plain.post("/v1/chat/completions/", json={}).status_code == 404
    with pytest.raises(anthropic.PermissionDeniedError) as refused:
        anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0).messages.create(
            model="first", max_tokens=1, messages=MESSAGES
        )
    assert refused.value.response.json()["error"]["type"] == "permission_error"


def test_a_key_is_used_from_its_own_networks_only(server: ServerProcess) -> None:
    _, key = make(server, rights={"sources": ["198.51.100.0/24"]})
    for forwarded, expected in (
        ({}, 403),
        ({"x-forwarded-for": "198.51.100.7"}, 200),
        ({"x-forwarded-for": "203.0.113.1, 198.51.100.7"}, 200),
        ({"x-forwarded-for": "198.51.100.7, 203.0.113.1"}, 403),
        ({"x-forwarded-for": "nonsense"}, 403),
    ):
        with http(server, key, **forwarded) as client:
            reply = client.get("/v1/models")
            assert reply.status_code == expected, forwarded
            assert client.get("/nope").status_code == (404 if expected == 200 else 403)
        if expected == 403:
            assert reply.json()["error"]["code"] == "source_not_allowed"


def test_stored_objects_belong_to_the_project(server: ServerProcess) -> None:
    project = {"organisation": "objects", "project": "web"}
    (_, one), (_, two), (_, other) = (
        make(server, **project),
        make(server, **project),
        make(server, organisation="objects", project="app"),
    )
    stored = sdk(server, one).files.create(file=("x.txt", b"hello"), purpose="user_data")
    answer = sdk(server, one).responses.create(model="first", input="x", max_output_tokens=2)
    assert sdk(server, two).files.content(stored.id).read() == b"hello"
    assert sdk(server, two).responses.retrieve(answer.id).id == answer.id
    assert [file.id for file in sdk(server, two).files.list()] == [stored.id]
    for stranger in (other, ENV_KEY):
        assert list(sdk(server, stranger).files.list()) == []
        with pytest.raises(openai.NotFoundError):
            sdk(server, stranger).files.content(stored.id)
        with pytest.raises(openai.NotFoundError):
            sdk(server, stranger).responses.retrieve(answer.id)


def batch_of(client: openai.OpenAI, model: str, **body: object) -> str:
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": model, "messages": MESSAGES, **body},
    }
    file = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    return batch.id


def test_a_batch_has_the_rights_of_its_key_and_no_others(server: ServerProcess) -> None:
    project = {"organisation": "objects", "project": "batches"}
    _, watcher = make(server, **project)
    eyes = sdk(server, watcher).batches
    _, files_only = make(server, **project, rights={"endpoints": ["files", "batches"]})
    with pytest.raises(openai.PermissionDeniedError, match="'chat'"):
        batch_of(sdk(server, files_only), "first")
    key_id, key = make(server, **project, rights={"models": ["first"]})
    hidden = batch_of(sdk(server, key), "second")
    server.wait_for(lambda: eyes.retrieve(hidden).status == "failed", "the batch to fail")
    failure = eyes.retrieve(hidden).errors
    assert failure is not None
    assert failure.data is not None
    assert failure.data[0].code == "model_not_found"
    running = batch_of(sdk(server, key), "first", **SLOW)
    server.wait_for(lambda: eyes.retrieve(running).status == "in_progress", "the batch to begin")
    server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 1, "its line to run")
    waiting = batch_of(sdk(server, key), "first", max_tokens=2)
    admin_of(server).revoke(OPERATOR, key_id)
    server.wait_for(lambda: status(server, key) == 401, "the key to end")
    eyes.cancel(running)
    server.wait_for(lambda: eyes.retrieve(waiting).status == "cancelled", "the batch to stop")
    server.wait_for(lambda: eyes.retrieve(running).status == "cancelled", "the cancelled batch")


def test_a_background_response_begins_with_the_rights_of_that_moment(server: ServerProcess) -> None:
    project = {"organisation": "objects", "project": "background"}
    _, holder = make(server, **project)
    key_id, key = make(server, **project)
    slow = {"model": "first", "input": "x", "background": True, "extra_body": {"ignore_eos": True}}
    first = sdk(server, holder).responses.create(**slow, max_output_tokens=4000)
    server.wait_for(
        lambda: sdk(server, holder).responses.retrieve(first.id).status == "in_progress",
        "the first to hold the only place",
    )
    second = sdk(server, key).responses.create(**slow, max_output_tokens=2)
    with http(server, ADMIN_KEY) as admin:
        admin.post(f"/admin/keys/{key_id}/revoke").raise_for_status()
    sdk(server, holder).responses.cancel(first.id)
    server.wait_for(
        lambda: sdk(server, holder).responses.retrieve(second.id).status == "failed",
        "the second to be refused",
    )
