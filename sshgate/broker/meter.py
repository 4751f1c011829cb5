"""Counts the tokens of one answer while it passes: from streams and plain answers, in any pieces. Pure.

The numbers are the provider's own. Where an answer breaks off before it has given them, or gives none, they are
estimated from its text and marked as such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

# Bytes that are kept of one event, or of a plain answer. Codex' last event repeats the whole turn: some 300 KB.
LONGEST = 1 << 20
# A larger number of tokens is no answer of a provider.
MOST_TOKENS = 1 << 40
# Characters of a token, about, by which providers estimate as well.
CHARACTERS = 4
LONGEST_MODEL = 100


@dataclass(slots=True)
class Usage:
    """The tokens of one request. No token is in two of the numbers."""

    model: str
    """As the provider names it; until then as the client did."""
    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    """Written for five minutes."""
    cache_write_hour: int = 0
    output: int = 0
    estimated: bool = False
    """Whether a part of it is counted from the text, because the answer broke off or has no numbers."""

    @property
    def prompt(self) -> int:
        """All tokens that the model has read."""
        return self.input + self.cache_read + self.cache_write + self.cache_write_hour


class _Answer(msgspec.Struct):
    """What matters of a plain answer, or of the answer inside an event; all else is skipped unread."""

    model: Any = None
    usage: Any = None
    usageMetadata: Any = None  # noqa: N815
    modelVersion: Any = None  # noqa: N815


class _Event(_Answer):
    """One event of a stream."""

    type: Any = None
    message: _Answer | None = None
    response: _Answer | None = None
    delta: Any = None
    choices: Any = None
    candidates: Any = None


_event = msgspec.json.Decoder(_Event).decode
_answer = msgspec.json.Decoder(_Answer | list[_Answer]).decode


class Meter:
    """Reads one answer. ``feed`` it the body, then call ``finish``.

    Args:
        provider: ``anthropic``, ``openai`` or ``gemini``.
        model: The one that was asked for.
        size: Bytes of the request.
        events: Whether the answer is a stream of server-sent events.
        readable: False if it is compressed: only its size counts then.
    """

    def __init__(self, provider: str, model: str, size: int, events: bool, readable: bool = True) -> None:
        self._usage = Usage(model[:LONGEST_MODEL])
        self._read: Callable[[_Event | _Answer], None] = {"anthropic": self._anthropic, "gemini": self._gemini}.get(
            provider, self._openai
        )
        self._size = size
        self._events = events
        self._readable = readable
        self._line = bytearray()
        self._data = bytearray()
        self._skipped = 0
        self._text = 0
        self._counted = False
        self._final = False

    def __repr__(self) -> str:
        return f"<Meter {self._usage.model}, {len(self._line) + len(self._data)} bytes kept>"

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the answer."""
        if not self._events or not self._readable:
            self._keep(self._line, data)
            return
        *ends, rest = data.split(b"\n")
        for end in ends:
            line, self._line = self._line, bytearray()
            if line:
                self._keep(line, end)
            self._end_line(line or end)
        if rest:
            self._keep(self._line, rest)

    def finish(self) -> Usage:
        """Return what the answer has cost. Nothing is fed after it."""
        if self._events and self._readable:
            self._end_line(self._line)
            self._dispatch()
        elif self._readable and not self._skipped:
            try:
                whole = _answer(self._line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._skipped += len(self._line)
            else:
                for one in whole if isinstance(whole, list) else [whole]:
                    self._read(one)
                self._final = self._counted
                if not self._counted:
                    self._skipped += len(self._line)
        else:
            self._skipped += len(self._line)
        if not self._final:
            self._estimate()
        return self._usage

    def _estimate(self) -> None:
        usage = self._usage
        usage.estimated = True
        if not usage.prompt:
            usage.input = -(-self._size // CHARACTERS)
        usage.output = max(usage.output, -(-(self._text + self._skipped) // CHARACTERS))

    # --- server-sent events ---

    def _keep(self, kept: bytearray, data: bytes | bytearray) -> None:
        """Keep bytes up to the bound, whatever the pieces are; what is beyond is only counted."""
        room = LONGEST - len(kept)
        kept += data[:room]
        self._skipped += max(0, len(data) - room)

    def _end_line(self, line: bytes | bytearray) -> None:
        line = line.removesuffix(b"\r")
        if not line:
            self._dispatch()
        elif line.startswith(b"data:"):
            if self._data:
                self._keep(self._data, b"\n")
            self._keep(self._data, line[6 if line[5:6] == b" " else 5 :])

    def _dispatch(self) -> None:
        data, self._data = self._data, bytearray()
        if not data or data == b"[DONE]":
            return
        try:
            event = _event(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._skipped += len(data)
            return
        self._read(event)

    # --- the three providers ---

    def _anthropic(self, one: _Event | _Answer) -> None:
        if isinstance(one, _Event):
            if one.message is not None:
                self._name(one.message.model)
                self._anthropic_usage(one.message.usage)
            if one.type == "content_block_delta" and isinstance(one.delta, dict):
                self._text += _length(*map(one.delta.get, ("text", "thinking", "partial_json")))
            # Cumulative: the last one counts, which has the reason of the model's end.
            if one.type == "message_delta" and self._anthropic_usage(one.usage) and isinstance(one.delta, dict):
                self._final |= isinstance(one.delta.get("stop_reason"), str)
        else:
            self._name(one.model)
            self._anthropic_usage(one.usage)

    def _anthropic_usage(self, found: Any) -> bool:
        if not isinstance(found, dict):
            return False
        usage = self._usage
        found = _with_iterations(found)
        usage.input = _number(found, "input_tokens", usage.input)
        usage.cache_read = _number(found, "cache_read_input_tokens", usage.cache_read)
        usage.output = _number(found, "output_tokens", usage.output)
        written = _number(found, "cache_creation_input_tokens", usage.cache_write + usage.cache_write_hour)
        by_time = found.get("cache_creation")
        hour = _number(by_time, "ephemeral_1h_input_tokens", 0) if isinstance(by_time, dict) else usage.cache_write_hour
        usage.cache_write_hour = min(hour, written)
        usage.cache_write = written - usage.cache_write_hour
        self._counted = True
        return True

    def _openai(self, one: _Event | _Answer) -> None:
        answer: _Answer = one
        if isinstance(one, _Event):
            if isinstance(one.type, str) and one.type.endswith(".delta"):
                self._text += _length(one.delta)
            for choice in _dicts(one.choices):
                delta = choice.get("delta")
                if isinstance(delta, dict):
                    self._text += _length(*map(delta.get, ("content", "reasoning_content", "reasoning", "refusal")))
                    for call in _dicts(delta.get("tool_calls")):
                        function = call.get("function")
                        self._text += _length(function.get("arguments")) if isinstance(function, dict) else 0
            answer = one.response or one
        self._name(answer.model)
        found = answer.usage
        if not isinstance(found, dict):
            return
        usage = self._usage
        prompt = _number(found, "input_tokens", _number(found, "prompt_tokens", 0))
        details = found.get("input_tokens_details") or found.get("prompt_tokens_details")
        details = details if isinstance(details, dict) else {}
        usage.cache_read = min(_number(details, "cached_tokens", 0), prompt)
        usage.cache_write = min(_number(details, "cache_write_tokens", 0), prompt - usage.cache_read)
        usage.input = prompt - usage.cache_read - usage.cache_write
        usage.output = _number(found, "output_tokens", _number(found, "completion_tokens", 0))
        self._counted = self._final = True

    def _gemini(self, one: _Event | _Answer) -> None:
        self._name(one.modelVersion)
        done = False
        for candidate in _dicts(one.candidates) if isinstance(one, _Event) else []:
            done |= bool(candidate.get("finishReason"))
            content = candidate.get("content")
            for part in _dicts(content.get("parts")) if isinstance(content, dict) else []:
                self._text += _length(part.get("text"))
        found = one.usageMetadata
        if isinstance(found, dict):
            usage = self._usage
            prompt = _number(found, "promptTokenCount", 0) + _number(found, "toolUsePromptTokenCount", 0)
            usage.cache_read = min(_number(found, "cachedContentTokenCount", 0), prompt)
            usage.input = prompt - usage.cache_read
            usage.output = _number(found, "candidatesTokenCount", 0) + _number(found, "thoughtsTokenCount", 0)
            self._counted = True
        # Every event has the numbers so far.
        self._final |= done and self._counted

    def _name(self, model: Any) -> None:
        if isinstance(model, str) and model:
            self._usage.model = model[:LONGEST_MODEL]


def _number(found: Mapping[str, Any], name: str, otherwise: int) -> int:
    value = found.get(name)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else otherwise


def _with_iterations(found: dict[str, Any]) -> dict[str, Any]:
    """The usage with the sums of its iterations, all of which are billed; its own numbers are those of the last one."""
    every = _dicts(found.get("iterations"))
    sums = {
        name: max(_number(found, name, 0), sum(_number(one, name, 0) for one in every))
        for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        if any(name in one for one in every)
    }
    return found | sums if sums else found


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _length(*texts: Any) -> int:
    return sum(len(text) for text in texts if isinstance(text, str))
