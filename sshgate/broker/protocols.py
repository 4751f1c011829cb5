"""The protocols of the three providers: paths, where the key goes, tools that they run, errors. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sshgate.broker.caller import Refused

# Bytes of a request's body. A prompt that fills a model's context has some 5 MB; images come on top.
LONGEST_BODY = 8 << 20
# What a query may hold. Anything else could be another name of the key, or change what the provider does.
QUERY = frozenset({"beta", "alt", "limit", "after", "after_id", "before_id", "order", "pageSize", "pageToken"})
# The key of Gemini's clients in the query; it is dropped.
QUERY_KEY = "key"
# Headers of one connection (RFC 9110 section 7.6.1), those that the broker sets itself, and those by which a client
# could act as somebody else, spend another project's money, or have the provider see another method.
_DROPPED = frozenset(
    {
        "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection",
        "host", "content-length", "expect", "accept-encoding", "forwarded", "via",
        "openai-organization", "openai-project", "x-goog-user-project",
        "x-http-method", "x-http-method-override", "x-method-override",
    }
)  # fmt: skip
_CREDENTIAL = re.compile(r"(.*[-_])?(authori[sz]ation|authenticate|api-?key|cookie2?|token|secret|password)\Z")
_FORWARDED = re.compile(r"x-(forwarded|real|original|amz)-.*\Z")
# Tools that the client runs. Their names carry a date, except the first ones.
_ANTHROPIC_CLIENT = re.compile(r"custom\Z|(bash|text_editor|computer|memory|tool_search_tool_\w+)_\d{8}\Z")
_OPENAI_CLIENT = frozenset({"function", "custom", "local_shell", "apply_patch", "computer_use_preview"})
_GEMINI_CLIENT = frozenset({"function_declarations", "computer_use"})
_USUAL_TIERS = ("auto", "default", "standard", "standard_only", "flex")
_DATED = re.compile(r"_\d{4}_\d{2}_\d{2}\Z|_\d{8}\Z")


@dataclass(frozen=True, slots=True)
class Protocol:
    """How one provider is asked."""

    name: str
    upstream: str
    key_header: str
    key_prefix: str
    posts: re.Pattern[str]
    """Paths of requests to a model; the group ``model``, if there is one, is the model."""
    gets: re.Pattern[str]


ANTHROPIC = Protocol(
    "anthropic", "https://api.anthropic.com", "x-api-key", "",
    re.compile(r"/v1/messages(/count_tokens)?"), re.compile(r"/v1/models(/[\w.@:-]+)?"),
)  # fmt: skip
OPENAI = Protocol(
    "openai", "https://api.openai.com", "authorization", "Bearer ",
    re.compile(r"/v1/(responses(/compact)?|chat/completions)"), re.compile(r"/v1/models(/[\w.@:-]+)?"),
)  # fmt: skip
GEMINI = Protocol(
    "gemini", "https://generativelanguage.googleapis.com", "x-goog-api-key", "",
    re.compile(r"/v1(beta)?/models/(?P<model>[\w.@-]+):(generateContent|streamGenerateContent|countTokens)"),
    re.compile(r"/v1(beta)?/models(/[\w.@-]+)?"),
)  # fmt: skip
PROTOCOLS: Mapping[str, Protocol] = {one.name: one for one in (ANTHROPIC, OPENAI, GEMINI)}


def passed(headers: Mapping[str, str] | Any) -> Iterator[tuple[str, str]]:
    """The headers of a request that go on to the provider, in their order; unknown ones are among them.

    ``headers`` has an ``items`` that may yield a name more than once.
    """
    pairs = list(headers.items())
    named = {name.strip().lower() for key, value in pairs if key.lower() == "connection" for name in value.split(",")}
    for key, value in pairs:
        name = key.lower()
        if name not in _DROPPED and name not in named and not _CREDENTIAL.match(name) and not _FORWARDED.match(name):
            yield key, value


@dataclass(frozen=True, slots=True)
class Asked:
    """What the body of a request asks for."""

    model: str
    stream: bool
    tools: frozenset[str]
    """What the provider itself would run, fetch or charge extra for, by the names of ``models.NAME.server_tools``."""


def asked(protocol: Protocol, path: str, body: bytes) -> Asked:
    """Read the body of a request to a model. Takes 0.2 ms for 88 KB and 25 ms for 5 MB.

    Raises:
        Refused: it is not a JSON object, or different readers could understand it differently.
    """
    try:
        content = json.loads(body.decode("utf-8"), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise Refused("the request's body is not plain JSON, each name once; nothing was sent.", 400) from None
    if not isinstance(content, dict):
        raise Refused("the request's body is not a JSON object; nothing was sent.", 400)
    found = protocol.posts.fullmatch(path)
    by_path = found.groupdict().get("model") if found is not None else None
    model = content.get("model") if by_path is None else by_path
    if not isinstance(model, str) or not model:
        raise Refused("the request names no model; nothing was sent.", 400)
    stream = content.get("stream") is True or ":stream" in path
    reader = {"anthropic": _anthropic, "openai": _openai, "gemini": _gemini}[protocol.name]
    return Asked(model, stream, frozenset((*reader(content), *_dearer(content))))


def _dearer(content: dict[str, Any]) -> Iterator[str]:
    """What makes an answer cost more than the prices of its model, or lets nobody see what it has cost."""
    named = {_snake(name): value for name, value in content.items()}
    if named.get("speed") not in (None, "standard"):
        yield "fast"
    if str(named.get("service_tier") or "auto").lower() not in _USUAL_TIERS:
        yield "priority"
    if named.get("inference_geo") not in (None, "global"):
        yield "inference_geo"
    if named.get("background"):
        yield "background"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name twice")
    return made


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _plain(tool: str) -> str:
    return _DATED.sub("", tool) or tool


def _types(tools: Any) -> Iterator[str]:
    """The types of tools; of one that is no object, a name that nobody can have allowed."""
    if tools is not None and not isinstance(tools, list):
        yield "unknown!"
    for tool in _list(tools):
        kind = tool.get("type", "custom") if isinstance(tool, dict) else "unknown!"
        yield kind if isinstance(kind, str) else "custom" if kind is None else "unknown!"


def _anthropic(content: dict[str, Any]) -> Iterator[str]:
    for kind in _types(content.get("tools")):
        if kind in ("mcp", "mcp_toolset"):
            yield "mcp"
        elif not _ANTHROPIC_CLIENT.match(kind):
            yield _plain(kind)
    if content.get("mcp_servers"):
        yield "mcp"
    if content.get("container"):
        yield "code_execution"
    blocks = list(_list(content.get("system")))
    for message in _list(content.get("messages")):
        blocks += _list(message.get("content")) if isinstance(message, dict) else []
    for block in blocks:
        nested = _list(block.get("content")) if isinstance(block, dict) else []
        for one in (block, *nested):
            yield from _fetched(one)


def _fetched(block: Any) -> Iterator[str]:
    """What a provider would fetch for a part of a message: a URL, or a file that was stored with it."""
    if not isinstance(block, dict):
        return
    if block.get("type") in ("image", "document", "search_result") and isinstance(source := block.get("source"), dict):
        if source.get("type") == "url" or "url" in source:
            yield "url"
        if source.get("type") == "file" or "file_id" in source:
            yield "files"
    if block.get("type") == "container_upload":
        yield "files"


def _openai(content: dict[str, Any]) -> Iterator[str]:
    for kind in _types(content.get("tools")):
        if kind not in _OPENAI_CLIENT:
            yield _plain(kind)
    if content.get("web_search_options") is not None or "search" in str(content.get("model")):
        yield "web_search"
    if content.get("prompt") is not None:
        yield "stored_prompt"  # it may bring tools of its own
    messages = [*_list(content.get("messages")), *_list(content.get("input"))]
    for message in messages:
        if not isinstance(message, dict):
            continue
        if message.get("type") == "item_reference":
            yield "stored_items"
        for block in (*_list(message.get("content")), *_list(message.get("output"))):
            if not isinstance(block, dict):
                continue
            image = block.get("image_url")
            address = image.get("url") if isinstance(image, dict) else image
            if address is not None and not str(address).startswith("data:"):
                yield "url"
            if block.get("file_url") is not None:
                yield "url"
            stored = block.get("file")
            if block.get("file_id") is not None or (isinstance(stored, dict) and stored.get("file_id") is not None):
                yield "files"


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _gemini(content: dict[str, Any]) -> Iterator[str]:
    content = {_snake(name): value for name, value in content.items()}
    inner = content.get("generate_content_request")
    if isinstance(inner, dict):  # countTokens may hold a whole request
        yield from _gemini(inner)
    tools = content.get("tools")
    for tool in tools if isinstance(tools, list) else [tools] if tools is not None else []:
        for name in tool if isinstance(tool, dict) else ["unknown!"]:
            if (plain := _snake(name)) not in _GEMINI_CLIENT:
                yield "mcp" if plain.startswith("mcp") else plain
    if content.get("cached_content") is not None:
        yield "files"
    contents = content.get("contents")
    places = [*(contents if isinstance(contents, list) else [contents]), content.get("system_instruction")]
    for place in places:
        parts = place.get("parts") if isinstance(place, dict) else None
        for part in parts if isinstance(parts, list) else [parts]:
            if isinstance(part, dict) and any(_snake(name) == "file_data" for name in part):
                yield "url"


def failure(protocol: Protocol | None, status: int, sentence: str) -> dict[str, Any]:
    """The body of an error in the provider's own form, so that agents show the sentence; ``None``: of no provider."""
    text = f"sshgate: {sentence}"
    if protocol is GEMINI:
        state = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
        return {"error": {"code": status, "message": text, "status": state.get(status, "UNAVAILABLE")}}
    kinds = {
        400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
        413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error",
    }  # fmt: skip
    kind = kinds.get(status, "api_error")
    if protocol is OPENAI:
        return {"error": {"message": text, "type": kind, "param": None, "code": "sshgate"}}
    return {"type": "error", "error": {"type": kind, "message": text}}
