"""What a gateway shows to machines: its health, its metrics, its audit file."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families


def get(port: int, path: str, limit: float = 10.0) -> tuple[int, str]:
    """Status and text of a GET on loopback."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=limit) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


class Scraped:
    """One scrape of ``/metrics``."""

    def __init__(self, port: int) -> None:
        status, self.text = get(port, "/metrics")
        assert status == 200, self.text
        self._samples = [sample for family in text_string_to_metric_families(self.text) for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series of this name that have these labels."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and all(sample.labels.get(key) == value for key, value in labels.items())
        )

    def names(self) -> set[str]:
        """The names of all samples."""
        return {sample.name for sample in self._samples}


def events(file: Path) -> list[dict[str, Any]]:
    """The lines of an audit file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
