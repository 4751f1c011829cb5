"""The description of the REST routes is valid, and says what there is."""

from __future__ import annotations

import json
from typing import Any

from openapi_spec_validator import validate

from webshim.app import OPENAPI


def test_the_file_is_valid_openapi() -> None:
    document: dict[str, Any] = json.loads(OPENAPI.read_text())
    validate(document)
    assert document["openapi"].startswith("3.1")
