"""The money for one request, and files of prices."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from sshgate.broker.meter import Usage
from sshgate.broker.prices import NANO, PROVIDERS, Prices
from sshgate.errors import ConfigError

OWN = """
date: 2026-01-31
anthropic:
  claude-a: {input: 3, output: 15}
  claude-a-big: {input: 0.0375, output: 1, cache_read: 0, above: {tokens: 1000, input: 6, output: 30}}
"""


def prices(directory: Path, text: str = OWN) -> Prices:
    path = directory / "prices.yaml"
    path.write_text(text)
    return Prices(path)


def test_tokens_have_prices_by_their_kind(tmp_path: Path) -> None:
    million = 1_000_000
    usage = Usage("claude-a", million, million, million, million, million)
    assert prices(tmp_path).cost("anthropic", usage) == (3 + 0.3 + 3.75 + 6 + 15) * NANO


def test_amounts_have_no_rounding_but_up(tmp_path: Path) -> None:
    assert prices(tmp_path).cost("anthropic", Usage("claude-a-big", 1)) == 38  # 37.5 nanodollars
    assert prices(tmp_path).cost("anthropic", Usage("claude-a-big", 2)) == 75


def test_a_long_prompt_costs_more_in_all_its_tokens(tmp_path: Path) -> None:
    assert prices(tmp_path).cost("anthropic", Usage("claude-a-big", 900, 101, output=1)) == 900 * 6000 + 60_600 + 30_000


@pytest.mark.parametrize(
    ("model", "listed"),
    [
        ("claude-a", "claude-a"),
        ("claude-a-20260101", "claude-a"),
        ("claude-a-big-20260101", "claude-a-big"),
        ("CLAUDE-A@20260101", "claude-a"),
        ("us.anthropic.claude-a-20260101-v1:0", "claude-a"),
        ("anthropic/claude-a", "claude-a"),
        ("claude-a-2026-01-31", "claude-a"),
        ("claude-a-latest", "claude-a"),
        ("claude-a-preview-01-2026", "claude-a"),
        ("claude-a:free", "claude-a"),
        ("claude-a-pro", None),
        ("claude-a-pro-20260101", None),
        ("claude-a-2", None),
        ("claude-a_x", None),
        ("claude-a\n", None),
        ("claude-abc", None),
        ("brand-new", None),
    ],
)
def test_models_are_found_by_their_names_without_dates(tmp_path: Path, model: str, listed: str | None) -> None:
    own = prices(tmp_path)
    price = own.of("anthropic", model)
    if listed is not None:
        assert price == own.of("anthropic", listed)
    else:
        assert price.input == 6000, "the dearest of its provider"
        assert price.output == 30_000


def test_a_provider_that_the_file_lacks_is_not_free(tmp_path: Path) -> None:
    assert prices(tmp_path).of("openai", "gpt").output == 30_000


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("date: soon\n", "date: write the day"),
        ("anthropic: {}\n", "'date'"),
        ("date: 2026-01-31\nmistral: {}\n", "mistral: unknown"),
        ("date: 2026-01-31\nopenai: {gpt: {input: 1}}\n", "gpt: write input and output"),
        ("date: 2026-01-31\nopenai: {gpt: {input: -1, output: 1}}\n", "gpt: input: write dollars"),
        ("date: 2026-01-31\nopenai: {gpt: {input: true, output: 1}}\n", "gpt: input: write dollars"),
        ("date: 2026-01-31\nopenai: {gpt: {input: 1, output: 1, tax: 1}}\n", "gpt: tax: unknown"),
        ("date: 2026-01-31\nopenai: {gpt: {input: 1, output: 1, above: {input: 1}}}\n", "gpt: above: write the number"),
        ("date: 2026-01-31\nopenai: {}\n", "the price of no model"),
        ("- x\n", "no file of prices"),
        ("a: [\n", "no file of prices"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, clause: str) -> None:
    with pytest.raises(ConfigError, match=clause):
        prices(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Prices(tmp_path / "none.yaml")


def test_the_prices_of_this_version_have_a_date_and_every_provider() -> None:
    own = Prices()
    assert own.date >= datetime.date(2026, 11, 29)
    for provider in PROVIDERS:
        price = own.of(provider, "brand-new")
        assert price.output > price.input > price.cache_read > 0 or price.cache_read == price.input
    haiku, opus = own.of("anthropic", "claude-haiku-4-5-20251001"), own.of("anthropic", "claude-opus-4-5-20251101")
    assert own.of("openai", "gpt-5-pro-2025-10-06").output == 120_000
    assert [int(one) for one in (haiku.input, haiku.cache_read, haiku.cache_write, haiku.output)] == [
        1000, 100, 1250, 5000,
    ]  # fmt: skip
    assert [int(one) for one in (opus.input, opus.output)] == [5000, 25_000]
