"""The frames of the browser's protocol: what is taken, what is refused, whatever comes."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webshim import protocol
from webshim.protocol import Ack, Attach, Broken, Close, Ping, Resize, Snapshot, Title, parse

ATTACH = {"type": "attach", "session": "s", "ticket": "t", "tab": "x", "cols": 80, "rows": 24}


def test_each_frame_is_understood() -> None:
    assert parse(json.dumps({**ATTACH, "from": 7, "take_over": True, "later": []})) == Attach(
        "s", "t", "x", 80, 24, 7, True
    )
    assert parse(json.dumps(ATTACH)) == Attach("s", "t", "x", 80, 24, None, False)
    assert parse('{"type":"resize","cols":1000,"rows":500}') == Resize(1000, 500)
    assert parse('{"type":"ack","offset":0}') == Ack(0)
    assert parse('{"type":"ping"}') == Ping(None)
    assert parse('{"type":"title","text":"a\\u001b[31m\\u0000b"}') == Title("a[31mb")
    assert parse('{"type":"snapshot","offset":1,"cols":2,"rows":3,"data":"x"}') == Snapshot(1, 2, 3, "x")


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{}", "{", '{"type":"hello"}', '{"type":7}', "[" * 100_000,
        '{"type":"resize","cols":-1,"rows":24}', '{"type":"resize","cols":0,"rows":24}',
        '{"type":"resize","cols":1e9,"rows":24}', '{"type":"resize","cols":NaN,"rows":24}',
        '{"type":"resize","cols":"80","rows":24}', '{"type":"resize","cols":80.5,"rows":24}',
        '{"type":"resize","cols":1001,"rows":24}', '{"type":"resize","cols":80,"rows":501}',
        '{"type":"resize","cols":true,"rows":24}', '{"type":"resize","cols":80}',
        '{"type":"ack","offset":-1}', '{"type":"ack","offset":9007199254740993}',
        '{"type":"title","text":"\ud800"}', '{"type":"title","text":"\\ud800"}',
        json.dumps({**ATTACH, "session": "x" * 65}), json.dumps({**ATTACH, "tab": ""}),
    ],
)  # fmt: skip
def test_what_is_not_exactly_a_frame_is_refused(text: str) -> None:
    with pytest.raises(Broken) as raised:
        parse(text)
    assert raised.value.close == Close.POLICY
    assert len(str(raised.value)) < 300


def test_a_snapshot_that_is_too_big_is_refused_as_such() -> None:
    fits = {"type": "snapshot", "offset": 0, "cols": 80, "rows": 24, "data": "ä" * (protocol.SNAPSHOT_BYTES // 2)}
    assert isinstance(parse(json.dumps(fits)), Snapshot)
    with pytest.raises(Broken) as raised:
        parse(json.dumps({**fits, "data": fits["data"] + "ä"}))  # type: ignore[operator]
    assert raised.value.close == Close.TOO_BIG


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["type", "session", "ticket", "tab", "cols", "rows", "from", "offset", "data", "text", "id"])
kinds = st.sampled_from(["attach", "resize", "ack", "snapshot", "ping", "title", "hello"])


@given(st.dictionaries(names, values, max_size=8), kinds)
def test_anything_in_the_fields_is_a_frame_within_its_bounds_or_refused(fields: dict[str, object], kind: str) -> None:
    frame = None
    with contextlib.suppress(Broken):
        frame = parse(json.dumps({**fields, "type": kind}))
    if isinstance(frame, (Resize, Attach, Snapshot)):
        assert 1 <= frame.cols <= 1000
        assert 1 <= frame.rows <= 500
    if isinstance(frame, Title):
        assert frame.text.isprintable()


@given(st.text())
def test_any_text_is_a_frame_or_refused(text: str) -> None:
    with pytest.raises(Broken):
        parse(text)


def test_the_constants_cannot_lock_up() -> None:
    step = 128 * 1024  # of the page's acks
    assert 2 * step <= protocol.WINDOW_LOW
    assert protocol.WINDOW_HIGH > protocol.WINDOW_LOW
    # What can be unacknowledged, and one chunk more, is still in the ring.
    assert protocol.RING_BYTES >= protocol.WINDOW_HIGH + 64 * 1024
