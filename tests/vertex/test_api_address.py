"""Where deploy commands send requests and tokens to."""

import pytest

from deploy.endpoints import api_address

USUAL = "https://api.example.com"


@pytest.mark.parametrize(
    ("given", "url", "netloc", "emulated"),
    [
        ("", "https://api.example.com", "api.example.com", False),
        (
            "https://other.example.com:444/",
            "https://other.example.com:444",
            "other.example.com:444",
            False,
        ),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000", "127.0.0.1:5000", True),
        ("http://[::1]:5000/", "http://[::1]:5000", "[::1]:5000", True),
    ],
)
def test_an_address(
    given: str, url: str, netloc: str, emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_ENDPOINT", given)
    assert api_address("API_ENDPOINT", USUAL) == (url, netloc, emulated)


@pytest.mark.parametrize(
    "given",
    [
        "http://[",
        "https://host:port",
        "http://192.0.2.1:5000",
        "ftp://127.0.0.1",
        "https://",
        "host",
    ],
)
def test_a_token_goes_nowhere_else(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_ENDPOINT", given)
    with pytest.raises(ValueError, match=r"API_ENDPOINT=.*give https://HOST"):
        api_address("API_ENDPOINT", USUAL)
