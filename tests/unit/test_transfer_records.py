"""The framing of a copy: what was put in comes out, and nothing else ever does."""

from __future__ import annotations

import contextlib
import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sshgate.transfer.records import (  # fmt: skip
    CHUNK,
    FRAME,
    Broken,
    Chunk,
    Decoder,
    Done,
    End,
    Enter,
    File,
    Hardlink,
    Have,
    Hole,
    Leave,
    Offer,
    Problem,
    ProtocolError,
    Record,
    Same,
    Sum,
    Symlink,
    Totals,
    Whole,
    encode,
)

NUMBER = some.integers(-(2**63), 2**63 - 1)
BYTES = some.binary(max_size=300)
TEXT = some.text(max_size=50)
RECORDS: some.SearchStrategy[Record] = some.one_of(
    some.builds(Enter, NUMBER, NUMBER, BYTES),
    some.just(Leave()),
    some.builds(File, NUMBER, NUMBER, NUMBER, NUMBER, BYTES),
    some.builds(Chunk, BYTES),
    some.builds(Hole, NUMBER),
    some.builds(Sum, BYTES),
    some.builds(Broken, TEXT),
    some.builds(Symlink, NUMBER, BYTES, BYTES),
    some.builds(Hardlink, BYTES, BYTES),
    some.builds(Offer, NUMBER, BYTES),
    some.builds(Have, NUMBER, NUMBER, BYTES),
    some.builds(Same, NUMBER, NUMBER, BYTES),
    some.builds(Problem, BYTES, TEXT),
    some.builds(Totals, NUMBER, NUMBER),
    some.builds(End, NUMBER, NUMBER),
    some.builds(Done, NUMBER, NUMBER),
    some.builds(Whole, NUMBER, NUMBER, BYTES, BYTES, BYTES),
)


def decoded(*pieces: bytes) -> list[Record]:
    """What a fresh decoder makes of them; the content of each chunk is taken while it is good."""
    decoder = Decoder()
    return [
        Chunk(bytes(record.content)) if isinstance(record, Chunk) else record
        for piece in pieces
        for record in decoder.feed(piece)
    ]


@given(some.lists(RECORDS, max_size=8), some.integers(1, 50))
def test_records_come_out_as_they_went_in_however_the_bytes_are_cut(records: list[Record], step: int) -> None:
    stream = b"".join(map(encode, records))
    assert decoded(*(stream[at : at + step] for at in range(0, len(stream), step))) == records


@given(some.lists(RECORDS, min_size=1, max_size=5), some.data())
def test_a_cut_stream_yields_only_the_whole_records(records: list[Record], data: some.DataObject) -> None:
    stream = b"".join(map(encode, records))
    cut = data.draw(some.integers(0, len(stream) - 1))
    whole = decoded(stream[:cut])
    assert whole == records[: len(whole)]
    assert len(whole) < len(records)


@given(RECORDS, some.data())
def test_a_flipped_bit_in_the_payload_is_noticed(record: Record, data: some.DataObject) -> None:
    """But for a chunk's: that is for the sum of its file."""
    frame = bytearray(encode(record))
    if len(frame) == 9 or isinstance(record, Chunk):
        return
    frame[data.draw(some.integers(9, len(frame) - 1))] ^= 1 << data.draw(some.integers(0, 7))
    with pytest.raises(ProtocolError):
        list(Decoder().feed(bytes(frame)))


@given(some.binary(max_size=200))
def test_any_bytes_are_records_or_garbled(noise: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        list(Decoder().feed(noise))


SIZE = some.one_of(some.integers(0, 9), some.integers(CHUNK - 9, CHUNK), some.integers(0, CHUNK))


@given(
    some.lists(SIZE, min_size=1, max_size=6), some.lists(some.integers(FRAME // 64, 2 * FRAME), min_size=1, max_size=9)
)
def test_chunks_of_any_size_come_out_however_the_buffer_is_filled(sizes: list[int], reads: list[int]) -> None:
    """As an agent reads them: straight into the buffer."""
    chunks: list[Record] = [Chunk(bytes([number + 1]) * size) for number, size in enumerate(sizes)]
    stream = io.BytesIO(b"".join(map(encode, chunks)))
    decoder = Decoder()
    got = []
    for limit in itertools.cycle(reads):
        size = stream.readinto(decoder.room()[:limit])
        if not size:
            break
        got += [Chunk(bytes(record.content)) for record in decoder.filled(size) if isinstance(record, Chunk)]
    assert got == chunks


def test_a_chunk_cannot_be_used_after_the_next_record_was_asked_for() -> None:
    """Its bytes are where the next ones go: there must be no way to take these for those."""
    records = Decoder().feed(encode(Chunk(b"content")) + encode(Leave()))
    chunk = next(records)
    assert isinstance(chunk, Chunk)
    assert chunk.content == b"content"
    next(records)
    with pytest.raises(ValueError, match="released"):
        bytes(chunk.content)


def test_a_chunk_larger_than_the_buffer_is_refused() -> None:
    with pytest.raises(ProtocolError):
        decoded(encode(Chunk(bytes(CHUNK + 1))))


def test_a_frame_that_claims_to_be_huge_is_refused_before_it_comes() -> None:
    with pytest.raises(ProtocolError):
        list(Decoder().feed(b"\x03\xff\xff\xff\xff\0\0\0\0"))
