"""Rights: what goes beyond a key's own, what two keys allow together, and what a route needs."""

from dataclasses import fields, replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from gateway.app import build_app
from gateway.control.auth import ADMIN_RIGHTS
from gateway.control.identity.access import GROUPS, OPEN, ROUTES, authorize, group_of
from gateway.control.identity.bounds import LIMIT_NAMES, OPERATOR, Grant, excess, meet
from gateway.control.identity.models import permitted_name
from gateway.control.identity.parameters import ENDPOINTS, RIGHTS
from gateway.control.identity.source import check_source, is_in, source_of
from gateway.control.identity.stored_key import rights_from_json, rights_to_json
from gateway.control.rights import CLASSES, SCOPES, Limits, Principal, Rights, Tenant
from gateway.errors import InvalidRequest, ModelNotFound, NotPermitted
from gateway.http.guard import Guarded
from gateway.settings import Settings, SettingsError, load_settings
from gateway.state import new_state

NETWORKS = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "192.168.0.0/16", "2001:db8::/32")
)
ADDRESSES = [ip_address(text) for text in ("10.0.0.1", "10.1.2.3", "192.168.1.1", "2001:db8::1")]
NAMES = st.none() | st.frozensets(st.sampled_from(["a", "b", "c"]))
NUMBERS = st.none() | st.integers(0, 3)
rights = st.builds(
    Rights,
    models=NAMES,
    endpoints=st.none() | st.frozensets(st.sampled_from(["chat", "files"])),
    highest_class=st.sampled_from(CLASSES),
    limits=st.builds(Limits, **dict.fromkeys(LIMIT_NAMES, NUMBERS)),
    sources=st.lists(st.sampled_from(NETWORKS), max_size=2, unique=True).map(tuple),
    admin=st.booleans(),
    manages=st.sampled_from(SCOPES),
    weight=st.sampled_from([0.5, 1.0, 2.0]),
)
tenants = st.builds(Tenant, st.sampled_from(["acme", "other"]), st.sampled_from(["web", "app"]))
grants = st.builds(Grant, tenants, rights, NUMBERS)
hypothesis = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def usable(grant: Grant) -> dict[str, Any]:
    """What requests with a grant can do, tried out on a few."""
    own = grant.rights
    who = Principal("key_x", "", rights=own)
    found: dict[str, Any] = {
        "models": {name for name in "abcd" if own.allows_model(name)},
        "groups": {group for group in ENDPOINTS if own.endpoints is None or group in own.endpoints},
        "from": {one for one in ADDRESSES if not own.sources or is_in(one, own.sources)},
        "classes": set(CLASSES[CLASSES.index(own.highest_class) :]),
        "moments": {now for now in range(5) if grant.expires_at is None or now < grant.expires_at},
        "admin": {"admin"} if own.admin else set(),
        "weights": {weight for weight in (0.5, 1.0, 2.0) if weight <= own.weight},
    }
    for name in LIMIT_NAMES:
        most = getattr(own.limits, name)
        found[name] = {count for count in range(5) if most is None or count <= most}
    assert who.owner == "key_x"
    return found


@hypothesis
@given(grants, grants)
def test_what_is_within_bounds_can_do_nothing_more(asked: Grant, bound: Grant) -> None:
    if excess(asked, bound) is None:
        most = usable(bound)
        for what, values in usable(asked).items():
            assert values <= most[what], what
        if asked.rights.admin:
            assert SCOPES.index(asked.rights.manages) <= SCOPES.index(bound.rights.manages)


@hypothesis
@given(grants, grants)
def test_together_two_grants_allow_what_both_do(own: Grant, bound: Grant) -> None:
    both = meet(own, bound)
    mine, most = usable(own), usable(bound)
    for what, values in usable(both).items():
        if what == "admin":
            assert values <= mine[what] & most[what]
        else:
            assert values == mine[what] & most[what], what
    assert both.tenant == own.tenant
    assert excess(replace(both, tenant=bound.tenant), bound) is None


@hypothesis
@given(rights)
def test_rights_are_the_same_after_they_were_stored(some: Rights) -> None:
    document = rights_to_json(some)
    assert rights_from_json(document) == some
    assert RIGHTS.read(document, "rights") == document


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("models", None),
        ("models", frozenset({"a", "z"})),
        ("endpoints", frozenset({"files"})),
        ("highest_class", "interactive"),
        ("limits", Limits(requests_per_minute=11)),
        ("limits", Limits()),
        ("sources", ()),
        ("sources", (ip_network("10.0.0.0/7"),)),
        ("sources", (ip_network("2001:db8::/32"),)),
        ("admin", True),
        ("weight", 1.1),
    ],
)
def test_every_right_is_bounded(field: str, value: object) -> None:
    bound = Rights(
        models=frozenset({"a"}),
        endpoints=frozenset({"chat"}),
        highest_class="default",
        limits=Limits(requests_per_minute=10),
        sources=(ip_network("10.0.0.0/8"),),
    )
    assert excess(Grant(rights=bound), Grant(rights=bound)) is None
    found = excess(Grant(rights=replace(bound, **{field: value})), Grant(rights=bound))  # type: ignore[arg-type]
    assert found is not None
    assert found.startswith(f"rights.{field}")


def test_tenant_scope_and_expiry_are_bounded() -> None:
    admin = Rights(admin=True, manages="project")
    bound = Grant(Tenant("acme", "web"), admin, expires_at=100.0)
    assert excess(replace(bound, tenant=Tenant("acme", "app")), bound) == "project"
    assert excess(replace(bound, tenant=Tenant("other", "web")), bound) == "organisation"
    assert excess(replace(bound, expires_at=None), bound) == "expires_at"
    assert excess(replace(bound, expires_at=101.0), bound) == "expires_at"
    wider = replace(bound, rights=replace(admin, manages="organisation"))
    assert excess(wider, bound) == "rights.manages"
    assert excess(replace(bound, tenant=Tenant("acme", "app")), wider) is None
    assert excess(replace(bound, tenant=Tenant("other", "x"), expires_at=None), OPERATOR) is None
    assert {right.name for right in fields(Rights)} == set(rights_to_json(Rights()))


def test_every_route_and_method_of_the_application_is_in_the_table() -> None:
    edge = build_app(new_state(Settings(_env_file=None, aip_predict_route="/vertex")))
    walked = set()
    for route in edge.cold.routes:
        assert isinstance(route, Route)
        assert isinstance(route.app, Guarded), route.path
        for method in route.methods or ():
            walked.add((route.path, method))
            if route.path in edge.open_paths:
                continue
            group = group_of(route.path, method)
            assert group in GROUPS, f"{method} {route.path}: add it to access.py"
            assert group != OPEN, f"{method} {route.path} is no open path"
            assert route.path.startswith("/admin/") == (group in ("admin", "server")), route.path
    for path in edge.hot:
        walked.add((path, "POST"))
        group = edge.groups[path]
        assert group in ENDPOINTS, f"POST {path}: add it to access.py"
    assert edge.groups["/vertex"] == "predict"
    assert set(ROUTES) <= walked, "the table names routes that do not exist"


def test_a_route_that_is_in_no_table_is_refused_to_everybody() -> None:
    almighty = Principal("key_x", "", rights=ADMIN_RIGHTS)
    with pytest.raises(NotPermitted) as caught:
        authorize(almighty, group_of("/v1/new", "GET"))
    assert caught.value.code == "endpoint_not_allowed"
    assert group_of("/v1/models", "DELETE") is None


@pytest.mark.parametrize(
    ("own", "allowed", "refused"),
    [
        (Rights(), {*ENDPOINTS, "any", "open"}, {"admin", "server"}),
        (Rights(endpoints=frozenset({"chat"})), {"chat", "any"}, {*ENDPOINTS} - {"chat"}),
        (Rights(endpoints=frozenset(), admin=True), {"admin"}, {*ENDPOINTS, "server"}),
        (ADMIN_RIGHTS, {*ENDPOINTS, "admin", "server"}, set()),
    ],
)
def test_groups_follow_the_rights(own: Rights, allowed: set[str], refused: set[str]) -> None:
    who = Principal("key_x", "", rights=own)
    for group in allowed:
        authorize(who, group)
    for group in refused:
        with pytest.raises(NotPermitted):
            authorize(who, group)


SERVED = [(("one", "alias"), False), (("two",), True), (("three",), True)]


def test_a_model_outside_the_rights_does_not_exist() -> None:
    some = Rights(models=frozenset({"alias", "two"}))
    assert permitted_name(Rights(), "three", SERVED) == "three"
    assert permitted_name(some, "alias", SERVED) == "alias"
    assert permitted_name(some, None, SERVED) == "two"
    assert permitted_name(Rights(models=frozenset({"alias"})), None, SERVED) == "alias"
    messages = []
    for name in ("three", "never"):
        with pytest.raises(ModelNotFound) as caught:
            permitted_name(some, name, SERVED)
        messages.append(caught.value.message.replace(name, "NAME"))
    assert messages[0] == messages[1]
    assert "three" not in messages[0].replace("NAME", "")
    with pytest.raises(ModelNotFound, match="no model of this server"):
        permitted_name(Rights(models=frozenset()), None, SERVED)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        # Nobody else's header is believed.
        ("203.0.113.9", ["10.1.2.3"], "203.0.113.9"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        # The client wrote the left part itself.
        ("127.0.0.1", ["10.1.2.3, 198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ["10.1.2.3", "198.51.100.7, 172.16.0.5"], "198.51.100.7"),
        ("127.0.0.1", ["172.16.0.9, 172.16.0.5"], "172.16.0.9"),
        ("127.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("127.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("::ffff:127.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ["198.51.100.7, unknown"], None),
        ("127.0.0.1", [","], None),
        (None, ["198.51.100.7"], None),
    ],
)
def test_the_source_is_what_trusted_proxies_say(
    peer: str | None, forwarded: list[str], expected: str | None
) -> None:
    trusted = [ip_network("127.0.0.0/8"), ip_network("172.16.0.0/12")]
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    client = None if peer is None else (peer, 4711)
    found = source_of(client, headers, trusted)
    assert (None if found is None else str(found)) == expected
    who = Principal("key_x", "", rights=Rights(sources=(ip_network("198.51.100.0/24"),)))
    if expected == "198.51.100.7":
        check_source(who, found)
    else:
        with pytest.raises(NotPermitted, match="may not be used from"):
            check_source(who, found)


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"model": ["a"]}, "rights.model"),
        ({"models": "a"}, "rights.models"),
        ({"endpoints": ["admin"]}, "rights.endpoints[0]"),
        ({"limits": {"requests_per_hour": 1}}, "rights.limits.requests_per_hour"),
        ({"limits": {"requests_per_minute": -1}}, "rights.limits.requests_per_minute"),
        ({"limits": {"requests_per_minute": True}}, "rights.limits.requests_per_minute"),
        ({"sources": ["10.0.0.1/8"]}, "rights.sources[0]"),
        ({"admin": 1}, "rights.admin"),
        ({"weight": 0}, "rights.weight"),
        ([], "rights"),
    ],
)
def test_bad_rights_are_explained(document: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        RIGHTS.read(document, "rights")
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("trusted_proxies", "10.0.0.0/33", "TRUSTED_PROXIES"),
        ("admin_keys", "short", "openssl rand -hex 32"),
        ("admin_keys", "k" * 32, "both API_KEYS and ADMIN_KEYS"),
    ],
)
def test_bad_settings_are_explained(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        load_settings(_env_file=None, api_keys="k" * 32, **{name: value})
