"""The protocols of the three providers: paths, where the key goes, tools that they run, errors. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sshgate.broker.caller import Refused

# Bytes of a request's body. A prompt that fills a model's context has some 5 MB; images come on top.
LONGEST_BODY = 8 << 20
# Lists, objects, strings and commas of a body. The parser does not let other threads run; so many take it 0.1 s.
MOST_PARTS = 400_000
# Characters of a model's name.
LONGEST_MODEL = 200
# What a query may hold. Anything else could be another name of the key, or change what the provider does.
QUERY = frozenset({"beta", "alt", "limit", "after", "after_id", "before_id", "order", "pageSize", "pageToken"})
# The key of Gemini's clients in the query; it is dropped.
QUERY_KEY = "key"
# Headers of one connection (RFC 9110 section 7.6.1), those that the broker sets itself, and those by which a client
# could act as somebody else, spend another project's money, or have the provider see another method or path.
_DROPPED = frozenset(
    {
        "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection",
        "host", "content-length", "expect", "accept-encoding", "forwarded", "via",
        "openai-organization", "openai-project", "x-goog-user-project",
        "x-http-method", "x-http-method-override", "x-method-override",
    }
)  # fmt: skip
# By which services between here and a provider are led elsewhere: dropped where such a service may be asked.
_LEADS = re.compile(r"(helicone|x-portkey|cf-aig|x-litellm)-.*\Z")
_CREDENTIAL = re.compile(r"(.*[-_])?(authori[sz]ation|authenticate|api-?key|cookie2?|token|secret|password)\Z")
_FORWARDED = re.compile(r"x-(forwarded|real|original|rewrite|amz)-.*\Z")
# Tools that the client runs. Their names carry a date, except the first ones.
_ANTHROPIC_CLIENT = re.compile(r"custom\Z|(bash|text_editor|computer|memory|tool_search_tool_\w+)_\d{8}\Z")
_OPENAI_CLIENT = frozenset({"function", "custom", "local_shell", "apply_patch", "computer_use_preview"})
_GEMINI_CLIENT = frozenset({"function_declarations", "computer_use"})
_USUAL_TIERS = ("auto", "default", "standard", "standard_only", "flex")
# Of an item of OpenAI's: what a function or a command was given or takes, and where a text is from.
_OPENAI_FREE = frozenset({"arguments", "parameters", "inputschema", "env", "annotations", "results"})
_DATED = re.compile(r"_\d{4}_\d{2}_\d{2}\Z|_\d{8}\Z")


# A model in a path. Its first character is no dot, so that it is no segment that leads elsewhere.
_NAME = r"[A-Za-z0-9_@:-][A-Za-z0-9_.@:-]*"
# The same before Gemini's colon: with two of them, a server may take another one for the method's.
_PLAIN_NAME = r"[A-Za-z0-9_@-][A-Za-z0-9_.@-]*"


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
    re.compile(r"/v1/messages(/count_tokens)?"), re.compile(rf"/v1/models(/{_NAME})?"),
)  # fmt: skip
OPENAI = Protocol(
    "openai", "https://api.openai.com", "authorization", "Bearer ",
    re.compile(r"/v1/(responses(/compact)?|chat/completions)"), re.compile(rf"/v1/models(/{_NAME})?"),
)  # fmt: skip
GEMINI = Protocol(
    "gemini", "https://generativelanguage.googleapis.com", "x-goog-api-key", "",
    re.compile(rf"/v1(beta)?/models/(?P<model>{_PLAIN_NAME}):(generateContent|streamGenerateContent|countTokens)"),
    re.compile(rf"/v1(beta)?/models(/{_NAME})?"),
)  # fmt: skip
PROTOCOLS: Mapping[str, Protocol] = {one.name: one for one in (ANTHROPIC, OPENAI, GEMINI)}


def passed(headers: Mapping[str, str] | Any, upstream: bool = False) -> Iterator[tuple[str, str]]:
    """The headers of a request that go on to the provider, in their order; unknown ones are among them.

    ``headers`` has an ``items`` that may yield a name more than once. ``upstream``: an address of the operator's own is
    asked instead of the provider's.
    """
    pairs = list(headers.items())
    named = {name.strip().lower() for key, value in pairs if key.lower() == "connection" for name in value.split(",")}
    for key, value in pairs:
        name = key.lower().replace("_", "-")  # the same to servers that hand headers on as variables
        dropped = name in _DROPPED or key.lower() in named or _CREDENTIAL.match(name) or _FORWARDED.match(name)
        if not dropped and not (upstream and _LEADS.match(name)):
            yield key, value


@dataclass(frozen=True, slots=True)
class Asked:
    """What the body of a request asks for."""

    model: str
    stream: bool
    tools: frozenset[str]
    """What the provider itself would run, fetch or charge extra for, by the names of ``models.NAME.server_tools``."""


def asked(protocol: Protocol, path: str, body: bytes) -> Asked:
    """Read the body of a request to a model. Takes 0.2 ms for 88 KB, 25 ms for 5 MB, and 0.2 s at most.

    Raises:
        Refused: it is not a JSON object, or different readers could understand it differently.
    """
    if _parts(body) > MOST_PARTS:
        raise Refused(f"the request's body has more than {MOST_PARTS} parts; nothing was sent.", 413)
    try:
        content = json.loads(body.decode("utf-8"), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise Refused("the request's body is not plain JSON, each name once; nothing was sent.", 400) from None
    if not isinstance(content, dict):
        raise Refused("the request's body is not a JSON object; nothing was sent.", 400)
    folded = _folded(content)
    if protocol is GEMINI:
        content = folded
    elif any(name != name.lower() for name in content):
        # A reader that takes Tools for tools would find others than this one.
        raise Refused("the request's body has a name in capitals; nothing was sent.", 400)
    found = protocol.posts.fullmatch(path)
    by_path = found.groupdict().get("model") if found is not None else None
    model = content.get("model") if by_path is None else by_path
    if not isinstance(model, str) or not model:
        raise Refused("the request names no model; nothing was sent.", 400)
    if len(model) > LONGEST_MODEL or not model.isprintable():
        # It is counted under this name: half a surrogate pair could not be written down, nor all that is beside it.
        raise Refused("the name of the model is too long or not printable; nothing was sent.", 400)
    stream = content.get("stream") is True or ":stream" in path
    reader = {"anthropic": _anthropic, "openai": _openai, "gemini": _gemini}[protocol.name]
    return Asked(model, stream, frozenset((*reader(content), *_dearer(content))))


def _dearer(content: dict[str, Any]) -> Iterator[str]:
    """What makes an answer cost more than the prices of its model, or lets nobody see what it has cost."""
    named = _folded(content)
    if named.get("speed") not in (None, "standard"):
        yield "fast"
    if str(named.get("servicetier") or "auto").lower() not in _USUAL_TIERS:
        yield "priority"
    if named.get("inferencegeo") not in (None, "global"):
        yield "inference_geo"
    if named.get("background"):
        yield "background"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name twice")
    return made


def _parts(body: bytes) -> int:
    """About how much a JSON parser would make of the body. Costs 40 ms at most, however the body is made."""
    outside = body.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"', MOST_PARTS)
    return len(outside) + sum(text.count(b"[") + text.count(b"{") + text.count(b",") for text in outside[::2])


def _fold(name: str) -> str:
    """One form of a name for readers that ignore capitals and ``_``: ``fileData`` is ``file_data``."""
    return name.replace("_", "").lower()


def _folded(content: dict[str, Any]) -> dict[str, Any]:
    folded = {_fold(name): value for name, value in content.items()}
    if len(folded) != len(content):
        raise Refused("the request's body has a name twice, in two spellings; nothing was sent.", 400)
    return folded


def _objects(value: Any, free: Callable[[dict[str, Any]], Container[str]]) -> Iterator[dict[str, Any]]:
    """All objects in a value, at any depth, with their names folded.

    ``free`` returns an object's names that hold what a tool was given, which is text to the provider.
    """
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            names = _folded(one)
            yield names
            passed_over = free(names)
            waiting += [inner for name, inner in names.items() if name not in passed_over]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _plain(tool: str) -> str:
    return _DATED.sub("", tool) or tool


def _types(tools: Any, within: str | None = None) -> Iterator[str]:
    """The types of tools; of one that is no object, a name that nobody can have allowed.

    ``within``: the type of what is no tool but holds some, one level deep (Codex's are in ``namespace``).
    """
    if tools is not None and not isinstance(tools, list):
        yield "unknown!"
    for tool in _list(tools):
        kind = tool.get("type", "custom") if isinstance(tool, dict) else "unknown!"
        if within is not None and kind == within and isinstance(tool.get("tools"), list):
            yield from _types(tool["tools"])
        else:
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
    for block in _objects([content.get("system"), content.get("messages")], _given):
        yield from _fetched(block)


def _given(block: dict[str, Any]) -> Container[str]:
    return ("input",) if str(block.get("type")).endswith("tool_use") else ()


def _fetched(block: dict[str, Any]) -> Iterator[str]:
    """What a provider would fetch for a part of a message: a URL, or a file that was stored with it."""
    source = block.get("source")
    for one in (block, *([_folded(source)] if isinstance(source, dict) else [])):
        if one.get("type") == "url" or (one is not block and "url" in one):
            yield "url"
        if one.get("type") == "file" or (one is not block and "fileid" in one):
            yield "files"
    if block.get("type") == "container_upload":
        yield "files"


def _openai(content: dict[str, Any]) -> Iterator[str]:
    for kind in _types(content.get("tools"), "namespace"):
        if kind not in _OPENAI_CLIENT:
            yield _plain(kind)
    if content.get("web_search_options") is not None or "search" in str(content.get("model")):
        yield "web_search"
    if content.get("prompt") is not None:
        yield "stored_prompt"  # it may bring tools of its own
    if content.get("previous_response_id") is not None or content.get("conversation") is not None:
        yield "stored_items"
    for block in _objects([content.get("messages"), content.get("input")], lambda _: _OPENAI_FREE):
        if block.get("type") == "item_reference":
            yield "stored_items"
        if block.get("tools") is not None:
            yield from (_plain(kind) for kind in _types(block["tools"], "namespace") if kind not in _OPENAI_CLIENT)
        image = block.get("imageurl")
        address = image.get("url") if isinstance(image, dict) else image
        if address is not None and not str(address).startswith("data:"):
            yield "url"
        if block.get("fileurl") is not None:
            yield "url"
        if block.get("fileid") is not None:
            yield "files"


def _gemini(content: dict[str, Any]) -> Iterator[str]:
    """``content``: with its names folded."""
    inner = content.get("generatecontentrequest")
    if isinstance(inner, dict):  # countTokens may hold a whole request
        yield from _gemini(_folded(inner))
    tools = content.get("tools")
    for tool in tools if isinstance(tools, list) else [tools] if tools is not None else []:
        for name in tool if isinstance(tool, dict) else ["unknown!"]:
            if (plain := re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()) not in _GEMINI_CLIENT:
                yield "mcp" if plain.startswith("mcp") else plain
    if content.get("cachedcontent") is not None:
        yield "files"
    places = [content.get("contents"), content.get("systeminstruction")]
    for block in _objects(places, lambda _: ("args", "response")):
        if "filedata" in block:
            yield "url"


def bare(protocol: Protocol | None, error: Refused) -> bytes:
    """A whole answer with such an error, for where no server of HTTP is."""
    body = json.dumps(failure(protocol, error.status, error.sentence)).encode()
    headers = {
        "Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close", **error.headers,
    }  # fmt: skip
    lines = [f"HTTP/1.1 {error.status} Refused", *(f"{name}: {text}" for name, text in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


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
