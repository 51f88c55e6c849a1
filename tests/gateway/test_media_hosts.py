"""The operator's rules: which hosts, and which addresses behind their names."""

from __future__ import annotations

import ipaddress

import pytest

from gateway.media.hosts import MediaHosts
from gateway.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.5",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "224.0.1.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "::",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    hosts = MediaHosts(["cdn.example.com"])
    entry = hosts.find("CDN.example.com.", None)
    assert entry is not None
    found = ipaddress.ip_address(address)
    assert not hosts.may_connect(entry, found)
    own = MediaHosts([address])
    literal = own.find(str(found), None)
    assert literal is not None
    assert own.may_connect(literal, found)
    opened = MediaHosts(["cdn.example.com"], [address])
    assert opened.may_connect(entry, found)


def test_public_addresses_are_fine() -> None:
    hosts = MediaHosts(["cdn.example.com", "[2001:4860:4860::8888]:8443"])
    entry = hosts.find("cdn.example.com", None)
    assert entry is not None
    for address in ("8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert hosts.may_connect(entry, ipaddress.ip_address(address))
    assert hosts.find("2001:4860:4860::8888", 8443) is not None
    assert hosts.find("2001:4860:4860::8888", None) is None
    assert hosts.find("www.cdn.example.com", None) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("media_allowed_hosts", "https://cdn.example.com"),
        ("media_allowed_hosts", "*.example.com"),
        ("media_allowed_hosts", "cdn.example.com/path"),
        ("media_allowed_hosts", "cdn.example.com:99999"),
        ("media_allowed_hosts", "exa mple.com"),
        ("media_private_networks", "10.0.0.5/8"),
        ("media_private_networks", "inside"),
    ],
)
def test_settings_that_mean_nothing_stop_the_start(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name.upper()):
        load_settings(_env_file=None, **{name: value})


def test_the_list_of_hosts_is_read() -> None:
    settings = load_settings(
        _env_file=None,
        media_allowed_hosts="a.example, B.example:81 ,[::1]",
        media_private_networks="",
    )
    hosts = MediaHosts(settings.media_allowed_hosts, settings.media_private_networks)
    asked = [("a.example", None), ("b.example", 81), ("b.example", None), ("::1", None)]
    assert [hosts.find(*one) is not None for one in asked] == [True, True, False, True]
