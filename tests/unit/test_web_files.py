"""What a sandbox says of a transfer is not believed: programs of its user can write there too."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from sshgate.stream.interfaces import STDOUT, Exited
from webshim.files import _Download, _Upload
from webshim.responses import Refusal

NONSENSE = [b"nonsense\n", b"-5\n", b"9" * 30 + b"\n", b"\xb2\n", b"\n", b"n" * 100_000]


@pytest.mark.parametrize("output", NONSENSE)
async def test_a_download_whose_size_is_nonsense_is_refused_and_ends(output: bytes) -> None:
    download = _Download(make_mocked_request("GET", "/"), "file")
    for start in range(0, len(output), 1000):
        await download.write(STDOUT, output[start : start + 1000])
    await download.wait_closed()
    assert len(download._head) < 2000
    with pytest.raises(Refusal) as refused:
        await download.completed()
    assert (refused.value.status, refused.value.code) == (502, "sandbox")


@pytest.mark.parametrize("output", NONSENSE)
async def test_an_upload_whose_size_is_nonsense_is_refused(output: bytes) -> None:
    upload = _Upload(make_mocked_request("PUT", "/"), 1000)
    await upload.write(STDOUT, output)
    await upload.finish(Exited(0))
    with pytest.raises(Refusal) as refused:
        upload.completed()
    assert (refused.value.status, refused.value.code) == (502, "sandbox")
