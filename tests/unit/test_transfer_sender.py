"""What a tree becomes while it changes."""

from __future__ import annotations

import os
from pathlib import Path

from sshgate.transfer.records import Broken, File, Hardlink, Sum
from sshgate.transfer.sender import ReadOptions, walk


def test_a_second_name_of_a_file_that_broke_is_sent_and_no_link_to_it(tmp_path: Path) -> None:
    """The receiver may have an older file of the first name, and the second one would become that."""
    (tmp_path / "a").write_bytes(bytes(1_000_000))
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    kinds = []
    for record in walk([os.fsencode(tmp_path) + b"/."], ReadOptions()):
        if isinstance(record, File) and record.name == b"a":
            os.truncate(tmp_path / "a", 100_000)
        if isinstance(record, (File, Hardlink, Broken, Sum)):
            kinds.append(type(record))
    assert kinds == [File, Broken, File, Sum]
