"""Tokens are counted as the provider counts them, in whatever pieces an answer comes."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshgate.broker.meter import LONGEST, Meter, Usage


def sse(*events: Any, names: bool = True, end: str = "\n") -> bytes:
    text = ""
    for one in events:
        if isinstance(one, dict) and names and "type" in one:
            text += f"event: {one['type']}{end}"
        text += f"data: {one if isinstance(one, str) else json.dumps(one)}{end}{end}"
    return text.encode()


ANTHROPIC = sse(
    {
        "type": "message_start",
        "message": {
            "model": "claude-opus-4-5-20251101",
            "usage": {
                "input_tokens": 12, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 4000,
                "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
                "output_tokens": 1,
            },
        },
    },
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Grüße 🙂\\n\n data: {}"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 20}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 57}},
    {"type": "message_stop"},
)  # fmt: skip
RESPONSES = sse(
    {"type": "response.created", "response": {"model": "gpt-5.5", "usage": None}},
    {"type": "response.output_text.delta", "delta": "Hello"},
    {"type": "response.output_text.done", "text": "Hello"},
    {
        "type": "response.completed",
        "response": {
            "model": "gpt-5.5-2026-04-23", "output": [{"type": "message", "content": "x" * 5000}],
            "usage": {
                "input_tokens": 1000, "input_tokens_details": {"cached_tokens": 600}, "output_tokens": 50,
                "output_tokens_details": {"reasoning_tokens": 20}, "total_tokens": 1050,
            },
        },
    },
)  # fmt: skip
CHAT = sse(
    {"object": "chat.completion.chunk", "model": "gpt-5.4", "choices": [{"delta": {"content": "Hel"}}], "usage": None},
    {"object": "chat.completion.chunk", "model": "gpt-5.4", "choices": [{"delta": {"content": "lo"}}], "usage": None},
    {
        "object": "chat.completion.chunk", "model": "gpt-5.4", "choices": [],
        "usage": {"prompt_tokens": 30, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 10}},
    },
    "[DONE]",
)  # fmt: skip
GEMINI = sse(
    {
        "candidates": [{"content": {"parts": [{"text": "Hel"}]}}], "modelVersion": "gemini-3.1-pro",
        "usageMetadata": {"promptTokenCount": 40, "candidatesTokenCount": 3},
    },
    {
        "candidates": [{"content": {"parts": [{"text": "lo"}]}, "finishReason": "STOP"}],
        "modelVersion": "gemini-3.1-pro",
        "usageMetadata": {
            "promptTokenCount": 40, "cachedContentTokenCount": 15, "candidatesTokenCount": 5, "thoughtsTokenCount": 7,
        },
    },
    end="\r\n",
)  # fmt: skip
STREAMS = {
    "anthropic": (ANTHROPIC, Usage("claude-opus-4-5-20251101", 12, 4000, 100, 200, 57)),
    "openai": (RESPONSES, Usage("gpt-5.5-2026-04-23", 400, 600, 0, 0, 50)),
    "chat": (CHAT, Usage("gpt-5.4", 20, 10, 0, 0, 2)),
    "gemini": (GEMINI, Usage("gemini-3.1-pro", 25, 15, 0, 0, 12)),
}
PLAIN = {
    "anthropic": (
        {
            "type": "message", "model": "claude-haiku-4-5", "content": [{"type": "text", "text": "Hello"}],
            "usage": {"input_tokens": 10, "output_tokens": 4, "cache_creation_input_tokens": 5},
        },
        Usage("claude-haiku-4-5", 10, 0, 5, 0, 4),
    ),
    "openai": (
        {
            "object": "response", "model": "gpt-5.5", "output": [{"content": "Hello"}],
            "usage": {"input_tokens": 9, "output_tokens": 3},
        },
        Usage("gpt-5.5", 9, 0, 0, 0, 3),
    ),
    "chat": (
        {"model": "gpt-5.4", "choices": [{"message": {}}], "usage": {"prompt_tokens": 8, "completion_tokens": 2}},
        Usage("gpt-5.4", 8, 0, 0, 0, 2),
    ),
    "gemini": (
        {
            "candidates": [{"finishReason": "STOP"}], "modelVersion": "gemini-2.5-flash",
            "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 1, "toolUsePromptTokenCount": 2},
        },
        Usage("gemini-2.5-flash", 9, 0, 0, 0, 1),
    ),
}  # fmt: skip


def provider(kind: str) -> str:
    return "openai" if kind == "chat" else kind


def counted(kind: str, pieces: Sequence[bytes], events: bool = True, size: int = 400) -> Usage:
    meter = Meter(provider(kind), "asked-for", size, events)
    for piece in pieces:
        meter.feed(piece)
    return meter.finish()


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_costs_what_the_provider_says(kind: str) -> None:
    data, usage = STREAMS[kind]
    assert counted(kind, [data]) == usage


@settings(max_examples=100)
@given(st.integers(0, 1 << 32), st.integers(0, 200))
@pytest.mark.parametrize("kind", STREAMS)
def test_the_pieces_do_not_matter(kind: str, seed: int, most: int) -> None:
    """2,500 splits of each of the four streams."""
    data, usage = STREAMS[kind]
    dice = random.Random(seed)
    for _ in range(25):
        cuts = [dice.randrange(len(data)) for _ in range(dice.randint(0, most))]
        assert counted(kind, split(data, cuts)) == usage


@pytest.mark.parametrize("kind", STREAMS)
def test_nor_does_a_byte_at_a_time(kind: str) -> None:
    data, usage = STREAMS[kind]
    assert counted(kind, [data[at : at + 1] for at in range(len(data))]) == usage


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_answer_costs_what_the_provider_says(kind: str) -> None:
    value, usage = PLAIN[kind]
    data = json.dumps(value, indent=1).encode()
    for cuts in ([], [1], list(range(len(data)))):
        assert counted(kind, split(data, cuts), events=False) == usage


def test_geminis_list_of_answers_counts_by_its_last_numbers() -> None:
    value, usage = PLAIN["gemini"]
    data = json.dumps([{"candidates": [], "usageMetadata": {"promptTokenCount": 1}}, value]).encode()
    assert counted("gemini", [data], events=False) == usage


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_that_breaks_is_counted_by_its_text(kind: str) -> None:
    """Cut at every byte: never nothing, marked as estimated, and the provider's own numbers once they were there."""
    data, usage = STREAMS[kind]
    for size in range(len(data)):
        cut = counted(kind, [data[:size]])
        assert cut.estimated or (cut.prompt, cut.output) == (usage.prompt, usage.output)
        assert cut.prompt > 0
    assert counted(kind, []).input == 100, "a quarter of the request's bytes"


def test_a_broken_stream_counts_the_text_it_brought() -> None:
    text = "word " * 400
    start, *_ = ANTHROPIC.split(b"event: ping")
    delta = sse({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
    cut = counted("anthropic", [start + delta])
    assert cut.estimated
    assert cut.output == len(text) / 4
    assert cut.prompt == 4312


def test_chat_without_numbers_is_estimated() -> None:
    call = {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "x" * 40}}]}}]}
    assert counted("chat", [sse(call, "[DONE]")]) == Usage("asked-for", 100, output=10, estimated=True)


def test_a_plain_answer_without_numbers_counts_by_its_size() -> None:
    meter = Meter("openai", "gpt-5", 400, events=False)
    meter.feed(b'{"id": "resp_1", "output": "' + b"x" * 4000 + b'"}')
    usage = meter.finish()
    assert (usage.input, usage.estimated) == (100, True)
    assert usage.output > 1000


def test_all_iterations_of_one_answer_are_billed() -> None:
    one = {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500}
    two = {"type": "message", "input_tokens": 23_000, "output_tokens": 1000, "cache_read_input_tokens": 5}
    meter = Meter("anthropic", "claude-opus-4-5", 400, events=False)
    meter.feed(
        json.dumps({"usage": {"input_tokens": 23_000, "output_tokens": 1000, "iterations": [one, two]}}).encode()
    )
    usage = meter.finish()
    assert (usage.input, usage.output, usage.cache_read) == (203_000, 4500, 5)


def test_an_answer_that_cannot_be_read_counts_by_its_size() -> None:
    meter = Meter("anthropic", "m", 400, events=True, readable=False)
    meter.feed(bytes(4000))
    assert meter.finish() == Usage("m", 100, output=1000, estimated=True)
    assert counted("anthropic", [b"<html>" + b"x" * 394], events=False).output == 100


@given(st.lists(st.integers(0, 1 << 23), max_size=20))
@settings(max_examples=20)
def test_memory_is_bounded_and_the_pieces_of_what_is_too_long_do_not_matter(cuts: list[int]) -> None:
    long = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x" * (2 * LONGEST)}}
    data = sse(long) + ANTHROPIC
    meter = Meter("anthropic", "asked-for", 400, events=True)
    for piece in split(data, cuts):
        meter.feed(piece)
        assert len(meter._line) + len(meter._data) <= 2 * LONGEST
    assert meter.finish() == STREAMS["anthropic"][1]


@pytest.mark.parametrize("kind", STREAMS)
def test_values_of_any_kind_do_no_harm(kind: str) -> None:
    """Numbers that are none are not counted, and nothing raises."""
    data, _ = STREAMS[kind]
    value, _ = PLAIN[kind]
    odd = ["null", '"x"', "-5", "1e400", "true", "[]", "{}", "99999999999999999999999", "[" * 2000]
    dice = random.Random(7)
    for text, events in ((data.decode(), True), (json.dumps(value), False)):
        parts = text.split(": ")
        for _ in range(300):
            place = dice.randrange(1, len(parts))
            rest = parts[place].lstrip("0123456789")
            changed = ": ".join([*parts[:place], dice.choice(odd) + rest, *parts[place + 1 :]])
            usage = counted(kind, [changed.encode()], events)
            assert all(
                type(number) is int and 0 <= number < 1 << 41
                for number in (usage.input, usage.cache_read, usage.cache_write, usage.cache_write_hour, usage.output)
            )
