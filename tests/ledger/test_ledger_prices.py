"""Price files: what they cost, and what is wrong with those that are not usable."""

from pathlib import Path

import pytest

from gateway.control.prices import PricesError, PriceTable, load_prices, read_prices
from gateway.control.response_cache.wish import Policy
from gateway.settings import SettingsError, load_settings

GOOD = {
    "date": "2026-11-01",
    "source": "https://example.com/pricing",
    "models": {"big": {"input": 2.5, "cached": 0.25, "output": 10}},
}


def test_without_a_file_everything_is_free() -> None:
    assert PriceTable().usd("anything", 10**9, 0, 10**9) == 0.0
    assert load_prices(None).usd("anything", 1, 1, 1) == 0.0


def test_cost_is_per_million_tokens_of_each_kind() -> None:
    table = read_prices(GOOD)
    assert table.usd("big", 1_000_000, 0, 0) == 2.5
    assert table.usd("big", 1_000_000, 1_000_000, 0) == 0.25
    assert table.usd("big", 0, 0, 1_000_000) == 10.0
    assert table.usd("big", 3_000, 1_000, 500) == pytest.approx(0.00025 + 0.005 + 0.005)
    assert table.usd("another", 1_000_000, 0, 1_000_000) == 0.0
    assert (table.date, table.source) == ("2026-11-01", "https://example.com/pricing")


def test_any_model_and_a_cached_price_that_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(
        "date: 2026-11-01\nsource: us\nmodels:\n  '*': {input: 1, output: 2}\n  own: {input: 0, "
        "output: 0}\n"
    )
    table = load_prices(path)
    assert table.date == "2026-11-01"
    assert table.usd("whatever", 1_000_000, 500_000, 0) == 1.0
    assert table.usd("own", 1_000_000, 0, 1_000_000) == 0.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"models": {}}, "'models' must hold"),
        ({"models": {"big": {"input": 1}}}, "'models.big.output' is missing"),
        ({"models": {"big": {"input": -1, "output": 1}}}, "'models.big.input' must be US dollars"),
        ({"models": {"big": {"input": float("nan"), "output": 1}}}, "'models.big.input'"),
        ({"models": {"big": {"input": True, "output": 1}}}, "'models.big.input'"),
        ({"models": {"big": {"input": 1, "output": 1, "tax": 1}}}, "'models.big.tax' is unknown"),
        ({"date": "last week"}, "'date' must be"),
        ({"date": None}, "'date' must be"),
        ({"source": ""}, "'source' must say"),
        ({"currency": "EUR"}, "'currency' is unknown"),
    ],
)
def test_a_file_that_is_not_usable_says_why(change: dict[str, object], told: str) -> None:
    with pytest.raises(PricesError, match=told):
        read_prices(GOOD | change)


def test_settings_say_what_is_wrong_with_files_urls_and_policies(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("{unclosed: [")
    with pytest.raises(SettingsError, match=r"PRICES_FILE: .*neither YAML nor JSON near line 1"):
        load_settings(prices_file=str(path))
    with pytest.raises(SettingsError, match=r"PRICES_FILE: .*cannot be read"):
        load_settings(prices_file=str(tmp_path / "none.yaml"))
    with pytest.raises(SettingsError) as raised:
        load_settings(usage_database_url="mysql://root:planted-secret@db/usage")
    assert "must begin with postgresql://" in str(raised.value)
    assert "planted-secret" not in str(raised.value)
    with pytest.raises(SettingsError, match="it is not a URL") as raised:
        load_settings(usage_database_url="postgresql://me:planted-secret@db:port/usage")
    assert "planted-secret" not in str(raised.value)
    with pytest.raises(SettingsError, match="RESPONSE_CACHE: 'sometimes' is not understood"):
        load_settings(response_cache="sometimes")


def test_for_whom_answers_are_cached_unasked() -> None:
    assert not Policy.parse("ask").covers(("m",), "key_a")
    assert Policy.parse("auto").covers(("m",), "key_a")
    both = Policy.parse("model:m, key:key_a")
    assert both.covers(("n", "m"), "key_a")
    assert not both.covers(("n",), "key_a")
    assert not both.covers(("m",), "key_b")
