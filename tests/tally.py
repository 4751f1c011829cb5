"""The last lines of a test run: what could not run and why, what failed, and the count. Sets the exit status.

Arguments: the directory of junit files, and the value of $CI. The directory may also hold ``unable``, a line for each
thing that was not to be had, ``failed``, a line for each layer, and ``times``, seconds and a name on each line.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

# A reason is told on one line, by its beginning.
LONGEST_REASON = 300


class Case(NamedTuple):
    """What a report says of one test: ``result`` is passed, failed or skipped."""

    name: str
    result: str
    reason: str = ""


def main(directory: str, ci: str) -> int:
    place = Path(directory)
    counts: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    again = {
        (report.stem.removesuffix(".again"), case.name): case.result
        for report in _reports(place, again=True)
        for case in _cases(report)
    }
    for report in _reports(place, again=False):
        layer = report.stem
        for name, result, reason in _cases(report):
            if result == "skipped":
                skipped[f"{layer}: {reason}"] += 1
            elif result == "failed" and again.get((layer, name)) == "passed":
                print(f"passed only when run again: {layer}: {name}: {reason}")
                result = "passed"
            elif result == "failed":
                print(f"failed: {layer}: {name}: {reason}")
            counts[result] += 1
    unable = _lines(place / "unable")
    for text in unable:
        print(f"could not run: {text}")
    for text, number in sorted(skipped.items()):
        print(f"skipped: {number} tests of {text}")
    failed = _lines(place / "failed")
    for layer in failed:
        print(f"layer failed: {layer}")
    if times := [line.partition(" ") for line in _lines(place / "times")]:
        print("seconds:", ", ".join(f"{name} {seconds}" for seconds, _, name in times))
    bad = bool(failed or counts["failed"])
    if ci == "true" and (unable or skipped):
        print("With CI=true everything has to run.")
        bad = True
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if bad else 0


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _reports(place: Path, again: bool) -> list[Path]:
    return [path for path in sorted(place.glob("*.xml")) if path.stem.endswith(".again") == again]


def _cases(report: Path) -> list[Case]:
    """One for each test; a test whose end failed too is told once, by what failed first."""
    found: dict[str, Case] = {}
    for element in ElementTree.parse(report).iter("testcase"):
        case = _case(element)
        if case.name not in found or found[case.name].result != "failed":
            found[case.name] = case
    return list(found.values())


def _case(element: ElementTree.Element) -> Case:
    name = f"{element.get('classname')}.{element.get('name')}"
    for tag, result in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        if (printed := element.find(tag)) is not None:
            lines = (printed.get("message") or "").strip().splitlines() or ["no reason given"]
            return Case(name, result, lines[0][:LONGEST_REASON])
    return Case(name, "passed")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
