"""What tokens cost: a file of prices with a date, and the money for one request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from fractions import Fraction
from importlib.resources import files
from math import ceil
from pathlib import Path
from typing import Any

import yaml

from sshgate.broker.meter import Usage
from sshgate.errors import ConfigError

PROVIDERS = ("anthropic", "openai", "gemini")
# Amounts are whole numbers of these, so that sums over gateways have no rounding.
NANO = 1_000_000_000
_PER_MILLION = NANO // 1_000_000
# `us.anthropic.claude-opus-4-5-20251101-v1:0`, `models/gemini-3-flash`, `anthropic/claude-opus-4-5`.
_LEAD = re.compile(r".*/|(?:[a-z]{2,6}\.)?anthropic\.")
# What a model's name may have after the name in the file: a date, or other words for the same model. `gpt-5-pro` is
# another model than `gpt-5`.
_END = re.compile(
    r"(-\d{8}|-\d{4}-\d\d-\d\d|-\d{3,4}|-(chat-)?latest|-preview(-\d\d-\d{2,4})?)?(-v\d+)?([@:].*)?", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a model, in nanodollars per token."""

    input: Fraction
    output: Fraction
    cache_read: Fraction
    cache_write: Fraction
    cache_write_hour: Fraction
    above: tuple[int, Price] | None = None
    """The prices of a request whose prompt has more tokens than the number."""

    def cost(self, usage: Usage) -> int:
        """Return the nanodollars for this usage, rounded up."""
        if self.above is not None and usage.prompt > self.above[0]:
            return self.above[1].cost(usage)
        return ceil(
            usage.input * self.input
            + usage.output * self.output
            + usage.cache_read * self.cache_read
            + usage.cache_write * self.cache_write
            + usage.cache_write_hour * self.cache_write_hour
        )


class Prices:
    """All prices of one file. Reading it raises ``ConfigError``."""

    def __init__(self, path: Path | None = None) -> None:
        """``path``: ``None`` for the prices that come with this version."""
        self._where = str(path) if path is not None else "the prices of this version"
        try:
            text = path.read_text() if path is not None else files("sshgate.broker").joinpath("prices.yaml").read_text()
            read = yaml.safe_load(text)
            self.date = read.pop("date")
            if type(self.date) is not date:
                raise ValueError("date: write the day of the prices, such as 2026-11-29")
            self._models = {provider: _models(read.pop(provider, None) or {}) for provider in PROVIDERS}
            if read:
                raise ValueError(f"{next(iter(read))}: unknown; there are {', '.join(PROVIDERS)}")
            if not any(self._models.values()):
                raise ValueError("it has the price of no model")
        except OSError as error:
            raise ConfigError([f"{path}: cannot be read: {error.strerror}."]) from error
        except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError([f"{self._where}: this is no file of prices: {error}."]) from error
        all_of_them = _dearest(price for models in self._models.values() for price in models.values())
        self._dearest = {
            provider: _dearest(models.values() if models else [all_of_them])
            for provider, models in self._models.items()
        }

    def of(self, provider: str, model: str) -> Price:
        """Return the price of a model; of one that is not listed, the dearest of its provider, or else of all."""
        name = _LEAD.sub("", model.lower())
        models = self._models[provider]
        fitting = [known for known in models if name.startswith(known) and _END.fullmatch(name, len(known))]
        return models[max(fitting, key=len)] if fitting else self._dearest[provider]

    def cost(self, provider: str, usage: Usage) -> int:
        """Return the nanodollars for this usage, rounded up."""
        return self.of(provider, usage.model).cost(usage)


def _models(read: Mapping[str, Any]) -> dict[str, Price]:
    return {str(name).lower(): _price(name, found) for name, found in read.items()}


def _price(name: str, found: Mapping[str, Any]) -> Price:
    known = {one.name for one in fields(Price)}
    if unknown := [key for key in found if key not in known]:
        raise ValueError(f"{name}: {unknown[0]}: unknown")
    money = {key: _money(f"{name}: {key}", value) for key, value in found.items() if key != "above"}
    above = found.get("above")
    long = None
    if above is not None:
        rest = {key: value for key, value in above.items() if key != "tokens"}
        if not isinstance(above.get("tokens"), int):
            raise ValueError(f"{name}: above: write the number of tokens")
        long = (above["tokens"], _price(name, rest))
    if "input" not in money or "output" not in money:
        raise ValueError(f"{name}: write input and output")
    start = money["input"]
    return Price(
        start,
        money["output"],
        money.get("cache_read", start / 10),
        money.get("cache_write", start * Fraction(5, 4)),
        money.get("cache_write_hour", start * 2),
        long,
    )


def _money(where: str, value: Any) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise ValueError(f"{where}: write dollars per million tokens")
    return Fraction(str(value)) * _PER_MILLION


def _dearest(prices: Iterable[Price]) -> Price:
    every = [one for price in prices for one in (price, price.above[1] if price.above else price)]
    return Price(
        *(max(getattr(one, name) for one in every) for name in
          ("input", "output", "cache_read", "cache_write", "cache_write_hour"))
    )  # fmt: skip
