"""The admin API: who may do what, and that nobody gets more than they have."""

from typing import Any

import httpx
import pytest
from keys_help import ADMIN_KEY, CANARY, ENV_KEY, http, key_server, make, sdk, status
from server_process import MESSAGES, SENTENCE, NewServer, ServerProcess


@pytest.fixture
def server(shared_server: NewServer) -> ServerProcess:
    return key_server(shared_server)


@pytest.fixture
def admin(server: ServerProcess) -> Any:
    with http(server, ADMIN_KEY) as client:
        yield client


def refused(reply: httpx.Response, status_code: int, code: str) -> str:
    assert reply.status_code == status_code, reply.text
    error = reply.json()["error"]
    assert error["code"] == code
    return str(error["message"])


ROUTES = [
    ("GET", "/admin/keys"),
    ("POST", "/admin/keys"),
    ("GET", "/admin/keys/key_000000000000"),
    ("PATCH", "/admin/keys/key_000000000000"),
    ("POST", "/admin/keys/key_000000000000/rotate"),
    ("POST", "/admin/keys/key_000000000000/revoke"),
    ("GET", "/admin/audit"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_only_admin_keys_get_in(server: ServerProcess, method: str, path: str) -> None:
    with http(server, ENV_KEY) as client:
        refused(client.request(method, path), 403, "admin_key_required")
    assert httpx.request(method, server.url + path).status_code == 401


def test_a_server_without_keys_says_how_to_make_one(shared_server: NewServer) -> None:
    keyless = shared_server(options={"text": SENTENCE})
    for method, path in ROUTES:
        message = refused(httpx.request(method, keyless.url + path), 403, "admin_key_required")
        assert "llm-gateway keys create --admin" in message


def test_a_key_from_its_making_to_its_end(server: ServerProcess, admin: httpx.Client) -> None:
    asked = {"name": "web", "organisation": "acme", "project": "web", "rights": {"weight": 2}}
    reply = admin.post("/admin/keys", json=asked)
    assert reply.headers["cache-control"] == "no-store"
    made = reply.json()
    key = made.pop("key")
    assert status(server, key) == 200
    assert admin.get(f"/admin/keys/{made['id']}").json() == made
    assert made["created_by"].startswith("key_")
    changed = admin.patch(f"/admin/keys/{made['id']}", json={"rights": {"models": ["first"]}})
    assert changed.json()["rights"] == made["rights"] | {"models": ["first"]}
    rotated = admin.post(f"/admin/keys/{made['id']}/rotate", json={"grace_s": 0}).json()
    assert status(server, key) == 401
    assert status(server, rotated["key"]) == 200
    ended = admin.post(f"/admin/keys/{made['id']}/revoke").json()
    assert ended["status"] == "revoked"
    assert status(server, rotated["key"]) == 401
    refused(admin.post(f"/admin/keys/{made['id']}/rotate"), 409, "conflict")
    listed = admin.get("/admin/keys", params={"organisation": "acme", "project": "web"}).json()
    assert ended in listed["data"]


def test_lists_come_in_pages(server: ServerProcess, admin: httpx.Client) -> None:
    made = [make(server, organisation="pages")[0] for _ in range(3)]
    where: dict[str, Any] = {"organisation": "pages", "limit": 2}
    first = admin.get("/admin/keys", params=where).json()
    assert [key["id"] for key in first["data"]] == [made[2], made[1]]
    assert first["has_more"]
    rest = admin.get("/admin/keys", params=where | {"after": first["last_id"]}).json()
    assert [key["id"] for key in rest["data"]] == [made[0]]
    assert not rest["has_more"]
    for path in ("/admin/keys", "/admin/audit"):
        refused(admin.get(path, params={"after": "nope"}), 400, "invalid_value")
        refused(admin.get(path, params={"limit": 0}), 400, "invalid_value")
    refused(admin.get("/admin/keys/nope"), 404, "not_found")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"nmae": "x"}, "unknown_parameter", "nmae"),
        ({"rights": {"modles": ["a"]}}, "unknown_parameter", "rights.modles"),
        ({"expires_at": 1}, "invalid_value", "expires_at"),
        ({"expires_at": 2**40, "expires_in_s": 5}, "invalid_value", "expires_at"),
        ({"expires_in_s": 0}, "invalid_value", "expires_in_s"),
        ({"project": "../x"}, "invalid_value", "project"),
        ({"name": 5}, "invalid_type", "name"),
    ],
)
def test_bad_requests_are_explained(
    admin: httpx.Client, body: dict[str, Any], code: str, param: str
) -> None:
    reply = admin.post("/admin/keys", json=body)
    refused(reply, 400, code)
    assert reply.json()["error"]["param"] == param


def test_bodies_are_bounded_json(admin: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    refused(admin.post("/admin/keys", content=b"[]", headers=headers), 400, "invalid_json")
    twice = b'{"name":"a","name":"b"}'
    refused(admin.post("/admin/keys", content=twice, headers=headers), 400, "invalid_json")
    large = b'{"name":"' + b"x" * 300_000 + b'"}'
    assert admin.post("/admin/keys", content=large, headers=headers).status_code == 413
    assert admin.post("/admin/keys", content=b"{}").status_code == 415


def test_an_admin_gives_no_more_than_it_has(server: ServerProcess, admin: httpx.Client) -> None:
    bounds = {
        "admin": True,
        "models": ["first"],
        "endpoints": ["chat"],
        "highest_class": "default",
        "limits": {"requests_per_minute": 10},
        "sources": ["127.0.0.0/8"],
        "weight": 1,
    }
    own = {"organisation": "acme", "project": "bounded"}
    parent_id, parent = make(server, **own, rights=bounds, expires_in_s=3600)
    peer_id, _ = make(server, **own)
    with http(server, parent) as client:
        made = client.post("/admin/keys", json={}).json()
        assert made["rights"] == bounds | {"admin": False, "manages": "project", "weight": 1.0}
        assert made["parent"] == made["created_by"] == parent_id
        assert made["project"] == "bounded"
        assert made["expires_at"] is not None
        for beyond in (
            {"rights": {"models": None}},
            {"rights": {"models": ["second"]}},
            {"rights": {"endpoints": ["files"]}},
            {"rights": {"highest_class": "interactive"}},
            {"rights": {"limits": {}}},
            {"rights": {"limits": {"requests_per_minute": 11}}},
            {"rights": {"sources": []}},
            {"rights": {"weight": 3}},
            {"rights": {"admin": True, "manages": "organisation"}},
            {"expires_at": None},
            {"project": "other"},
            {"organisation": "other"},
        ):
            refused(client.post("/admin/keys", json=beyond), 403, "rights_exceeded")
        # Not by a later change, and not by taking over a key that has more.
        path = f"/admin/keys/{made['id']}"
        refused(client.patch(path, json={"rights": {"weight": 3}}), 403, "rights_exceeded")
        refused(client.post(f"/admin/keys/{peer_id}/rotate"), 403, "rights_exceeded")
        refused(client.post(f"/admin/keys/{peer_id}/revoke"), 403, "rights_exceeded")
        refused(
            client.patch(f"/admin/keys/{parent_id}", json={"expires_at": None}),
            403,
            "rights_exceeded",
        )
        assert client.patch(path, json={"rights": {"weight": 0.5}}).status_code == 200
        refused(client.get("/v1/models"), 403, "endpoint_not_allowed")
    admin.post(f"/admin/keys/{parent_id}/revoke").raise_for_status()
    with http(server, parent) as client:
        assert client.post("/admin/keys", json={}).status_code == 401


def test_an_admin_sees_what_it_manages(server: ServerProcess, admin: httpx.Client) -> None:
    scoped = {"admin": True, "manages": "organisation"}
    _, organisation = make(server, organisation="seen", project="a", rights=scoped)
    _, project = make(server, organisation="seen", project="a", rights={"admin": True})
    inside, _ = make(server, organisation="seen", project="b")
    outside, _ = make(server, organisation="unseen")
    with http(server, organisation) as client:
        seen = {key["id"] for key in client.get("/admin/keys").json()["data"]}
        assert inside in seen
        assert outside not in seen
        refused(client.get(f"/admin/keys/{outside}"), 404, "not_found")
        refused(client.post(f"/admin/keys/{outside}/revoke"), 404, "not_found")
        refused(client.get("/admin/keys?organisation=unseen"), 403, "rights_exceeded")
        targets = {entry["target"] for entry in client.get("/admin/audit").json()["data"]}
        assert inside in targets
        assert outside not in targets
        assert client.post("/admin/keys", json={"project": "c"}).status_code == 200
    with http(server, project) as client:
        refused(client.get(f"/admin/keys/{inside}"), 404, "not_found")
        refused(client.get("/admin/keys?project=b"), 403, "rights_exceeded")
        assert {key["project"] for key in client.get("/admin/keys").json()["data"]} == {"a"}


def test_secrets_are_in_no_log_list_or_error(server: ServerProcess, admin: httpx.Client) -> None:
    key_id, first = make(server, name="planted")
    second = admin.post(f"/admin/keys/{key_id}/rotate", json={}).json()["key"]
    for key in (first, second):
        sdk(server, key).chat.completions.create(model="first", messages=MESSAGES, max_tokens=1)
    replies = [
        admin.get("/admin/keys", params={"limit": 1000}),
        admin.get(f"/admin/keys/{key_id}"),
        admin.get("/admin/audit", params={"limit": 1000}),
        admin.get(f"/admin/keys/{first}"),
        admin.post(f"/admin/keys/{first}/revoke"),
        admin.get("/admin/audit", params={"target": first}),
        admin.get("/metrics"),
        admin.get("/version"),
        httpx.get(f"{server.url}/v1/models", headers={"x-api-key": first + "x"}),
    ]
    shown = "".join(reply.text + str(reply.headers) for reply in replies)
    lines = server.log_lines()
    server.wait_for(
        lambda: any(line.get("key") == key_id for line in server.log_lines()), "the log"
    )
    assert lines
    secrets = [key.rpartition("_")[2] for key in (first, second)]
    for secret in (*secrets, ADMIN_KEY, ENV_KEY, CANARY):
        assert secret not in shown
        assert secret not in server.logs()
