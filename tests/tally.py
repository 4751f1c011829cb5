"""The last lines of a test run: what could not run and why, what failed, and the count. Sets the exit status.

Arguments: the directory of junit files, the value of $CI, the layers that failed, and one text for each thing
that was not to be had.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree


def main(directory: str, ci: str, failed: str, *unable: str) -> int:
    counts: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for report in sorted(Path(directory).glob("*.xml")):
        for case in ElementTree.parse(report).iter("testcase"):
            skip = case.find("skipped")
            if skip is not None:
                counts["skipped"] += 1
                skipped[f"{report.stem}: {skip.get('message', 'no reason given')}"] += 1
            elif case.find("failure") is not None or case.find("error") is not None:
                counts["failed"] += 1
                print(f"failed: {report.stem}: {case.get('classname')}.{case.get('name')}")
            else:
                counts["passed"] += 1
    for text in unable:
        print(f"could not run: {text}")
    for text, number in sorted(skipped.items()):
        print(f"skipped: {number} tests of {text}")
    for layer in failed.split():
        print(f"layer failed: {layer}")
    bad = bool(failed or counts["failed"])
    if ci == "true" and (unable or skipped):
        print("With CI=true everything has to run.")
        bad = True
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
