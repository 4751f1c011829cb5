"""What a row measures and how it is judged."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Samples:
    """One side of a row: what was measured, how often, in which unit."""

    what: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> str:
        return f"{min(self.values):.3g}-{max(self.values):.3g}"


@dataclass
class Row:
    """One line of the table. ``figure`` is what the target speaks of: a ratio, a difference, an amount."""

    name: str
    unit: str
    ours: Samples
    baseline: Samples | None
    figure: float
    target: str
    met: bool

    def as_json(self) -> dict[str, Any]:
        sides = {"ours": self.ours, "baseline": self.baseline}
        return {
            "name": self.name,
            "unit": self.unit,
            "figure": self.figure,
            "target": self.target,
            "met": self.met,
            **{
                side: {"what": samples.what, "median": samples.median, "values": samples.values}
                for side, samples in sides.items()
                if samples is not None
            },
        }


def ratio(name: str, unit: str, ours: Samples, baseline: Samples, most: float | None, least: float | None) -> Row:
    """A row whose figure is our median over the baseline's."""
    figure = ours.median / baseline.median
    bounds = [f"at most {most:g} x" if most is not None else "", f"at least {least:g} x" if least is not None else ""]
    met = (most is None or figure <= most) and (least is None or figure >= least)
    return Row(name, unit, ours, baseline, figure, " ".join(filter(None, bounds)), met)


def p99(values: list[float]) -> float:
    """The value below which 99 of 100 are."""
    return statistics.quantiles(values, n=100)[98]


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(runs: int, *sides: tuple[Samples, Callable[[], float]]) -> None:
    """Measure A B A B ..., after one uncounted turn, so that a machine whose speed drifts does so for all."""
    for turn in range(runs + 1):
        for samples, measure in sides:
            value = measure()
            if turn:
                samples.values.append(value)
