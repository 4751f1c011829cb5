"""What the body of a request asks of the provider besides an answer."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from sshgate.broker.caller import Refused
from sshgate.broker.protocols import (
    ANTHROPIC,
    GEMINI,
    LONGEST_BODY,
    OPENAI,
    PROTOCOLS,
    Protocol,
    asked,
    failure,
    passed,
)

MESSAGES = "/v1/messages"
GENERATE = "/v1beta/models/gemini-2:generateContent"
RESPONSES = "/v1/responses"


def tools(protocol: Protocol, path: str, **content: Any) -> set[str]:
    return set(asked(protocol, path, json.dumps({"model": "m", **content}).encode()).tools)


def user(*blocks: Any) -> list[Any]:
    return [{"role": "user", "content": list(blocks)}]


IMAGE = {"type": "image", "source": {"type": "url", "url": "https://evil.example/?secret"}}
STORED = {"type": "document", "source": {"type": "file", "file_id": "f"}}
OF_ANTHROPIC: list[tuple[dict[str, Any], set[str]]] = [
    ({}, set()),
    ({"tools": [{"name": "mine"}, {"type": "custom"}, {"type": "bash_20250124"}, {"type": "memory_20250818"}]}, set()),
    ({"tools": [{"type": "tool_search_tool_regex_20251119"}]}, set()),
    ({"tools": [{"type": "web_search_20250305"}]}, {"web_search"}),
    ({"tools": [{"type": "web_fetch_20250910"}, {"type": "code_execution_20250825"}]}, {"web_fetch", "code_execution"}),
    ({"tools": [{"type": "mcp_toolset"}]}, {"mcp"}),
    ({"tools": [{"type": ["web_fetch"]}]}, {"unknown!"}),
    ({"tools": {"type": "web_fetch_20250910"}}, {"unknown!"}),
    ({"tools": ["web_fetch"]}, {"unknown!"}),
    ({"mcp_servers": [{"url": "https://evil.example"}]}, {"mcp"}),
    ({"mcp_servers": []}, set()),
    ({"container": {"skills": [{}]}}, {"code_execution"}),
    ({"messages": user(IMAGE)}, {"url"}),
    ({"messages": user({"type": "tool_result", "content": [IMAGE]})}, {"url"}),
    ({"messages": user(STORED)}, {"files"}),
    ({"messages": user({"type": "document", "source": {"type": "content", "content": [IMAGE]}})}, {"url"}),
    ({"messages": user({"type": "tool_result", "content": [{"type": "search_result", "content": [IMAGE]}]})}, {"url"}),
    ({"messages": user({"type": "image", "SOURCE": {"Type": "base64", "URL": "https://evil.example"}})}, {"url"}),
    ({"messages": {"content": IMAGE}}, {"url"}),
    ({"messages": user({"type": "text", "citations": [{"url": "https://example.org"}]})}, set()),
    ({"messages": user({"type": "container_upload", "file_id": "f"})}, {"files"}),
    ({"messages": user({"type": "image", "source": {"type": "base64", "data": "aa"}})}, set()),
    # What a tool was given is text to the provider.
    ({"messages": user({"type": "tool_use", "input": IMAGE})}, set()),
    ({"messages": [{"role": "user", "content": "hi"}]}, set()),
    ({"speed": "standard", "service_tier": "standard_only", "inference_geo": "global"}, set()),
    ({"speed": "fast"}, {"fast"}),
    ({"inference_geo": "us"}, {"inference_geo"}),
]
OF_OPENAI: list[tuple[dict[str, Any], set[str]]] = [
    ({"tools": [{"type": "function"}, {"type": "custom"}, {"type": "local_shell"}]}, set()),
    ({"tools": [{"type": "mcp", "server_url": "https://evil.example"}]}, {"mcp"}),
    # As Codex 0.171 has them, there in an item of the input.
    ({"tools": [{"type": "namespace", "tools": [{"type": "function"}, {"type": "custom"}]}]}, set()),
    ({"input": [{"type": "additional_tools", "tools": [{"type": "namespace", "tools": [{"type": "custom"}]}]}]}, set()),
    ({"tools": [{"type": "namespace", "tools": [{"type": "web_search"}]}]}, {"web_search"}),
    ({"tools": [{"type": "namespace", "tools": [{"type": "namespace", "tools": []}]}]}, {"namespace"}),
    ({"tools": [{"type": "namespace"}]}, {"namespace"}),
    ({"input": [{"tools": [{"type": "namespace", "tools": [{"type": "mcp"}]}]}]}, {"mcp"}),
    ({"tools": [{"type": "web_search_preview_2025_03_11"}]}, {"web_search_preview"}),
    ({"tools": [{"type": "code_interpreter"}, {"type": "file_search"}]}, {"code_interpreter", "file_search"}),
    ({"web_search_options": {}}, {"web_search"}),
    ({"prompt": {"id": "p"}}, {"stored_prompt"}),
    ({"input": user({"type": "input_image", "image_url": "https://evil.example"})}, {"url"}),
    ({"input": user({"type": "input_image", "image_url": "data:image/png;base64,aa"})}, set()),
    ({"messages": user({"type": "image_url", "image_url": {"url": "https://evil.example"}})}, {"url"}),
    ({"input": user({"type": "input_file", "file_id": "f"})}, {"files"}),
    ({"input": [{"type": "computer_call_output", "output": {"image_url": "https://evil.example"}}]}, {"url"}),
    ({"input": [{"type": "computer_call_output", "output": {"file_id": "f"}}]}, {"files"}),
    ({"input": [{"type": "function_call_output", "output": [{"file_url": "https://evil.example"}]}]}, {"url"}),
    ({"input": [{"type": "tool_search_output", "tools": [{"type": "mcp"}]}]}, {"mcp"}),
    ({"messages": user({"type": "file", "file": {"file_id": "f"}})}, {"files"}),
    ({"input": [{"type": "local_shell_call", "action": {"env": {"HTTP_PROXY": "", "http_proxy": ""}}}]}, set()),
    ({"input": user({"type": "output_text", "annotations": [{"type": "file_citation", "file_id": "f"}]})}, set()),
    ({"previous_response_id": "r"}, {"stored_items"}),
    ({"conversation": {"id": "c"}}, {"stored_items"}),
    ({"input": "hi"}, set()),
    ({"input": "hi", "service_tier": "flex", "background": False}, set()),
    ({"input": "hi", "service_tier": "priority"}, {"priority"}),
    ({"input": "hi", "service_tier": ["priority"]}, {"priority"}),
    ({"input": "hi", "background": True}, {"background"}),
    ({"input": "hi", "background": 1}, {"background"}),
]
OF_GEMINI: list[tuple[dict[str, Any], set[str]]] = [
    ({"tools": [{"functionDeclarations": []}]}, set()),
    ({"tools": [{"googleSearch": {}}]}, {"google_search"}),
    ({"tools": {"url_context": {}}}, {"url_context"}),
    ({"tools": [{"codeExecution": {}}]}, {"code_execution"}),
    ({"tools": [{"mcpServers": []}]}, {"mcp"}),
    ({"contents": [{"parts": [{"fileData": {"fileUri": "https://evil.example"}}]}]}, {"url"}),
    ({"contents": {"parts": {"file_data": {}}}}, {"url"}),
    ({"contents": [{"parts": [{"functionResponse": {"parts": [{"fileData": {}}]}}]}]}, {"url"}),
    ({"contents": [{"parts": [{"functionCall": {"args": {"fileData": 1, "file_data": 2}}}]}]}, set()),
    ({"generateContentRequest": {"tools": [{"googleSearch": {}}]}}, {"google_search"}),
    ({"cachedContent": "cachedContents/x"}, {"files"}),
    ({"serviceTier": "priority"}, {"priority"}),
    ({"serviceTier": "PRIORITY"}, {"priority"}),
]


@pytest.mark.parametrize(("content", "found"), OF_ANTHROPIC)
def test_what_anthropic_would_run(content: dict[str, Any], found: set[str]) -> None:
    assert tools(ANTHROPIC, MESSAGES, **content) == found


@pytest.mark.parametrize(("content", "found"), OF_OPENAI)
def test_what_openai_would_run(content: dict[str, Any], found: set[str]) -> None:
    assert tools(OPENAI, RESPONSES, **content) == found


@pytest.mark.parametrize(("content", "found"), OF_GEMINI)
def test_what_google_would_run(content: dict[str, Any], found: set[str]) -> None:
    assert tools(GEMINI, GENERATE, **content) == found


AMBIGUOUS = [
    b'{"model": "a", "model": "b"}',
    b'{"model": "a", "mcp_servers": [], "mcp_serv\\u0065rs": [1]}',
    b'{"model": "a", "tools": [{"type": "custom", "type": "web_fetch_1"}]}',
    b"[]", b"", b"null", b'{"model": 3}', b"{}", b'{"model": ""}', b"{" * 9, b'{"model": "a"} {}',
    b"[" * 100_000, "{}".encode("utf-16"), b'\xef\xbb\xbf{"model": "a"}', b'{"model": "\xff"}',
]  # fmt: skip


@pytest.mark.parametrize("body", AMBIGUOUS)
def test_what_two_readers_could_understand_differently_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        asked(ANTHROPIC, MESSAGES, body)
    assert refused.value.status == 400


SPELLED_TWICE: list[tuple[Protocol, str, dict[str, Any]]] = [
    (ANTHROPIC, MESSAGES, {"Tools": []}),
    (OPENAI, RESPONSES, {"toolS": []}),
    (GEMINI, GENERATE, {"cachedContent": "x", "cached_content": None}),
    (GEMINI, GENERATE, {"contents": [{"parts": [{"fileData": {}, "file_data": None}]}]}),
    (ANTHROPIC, MESSAGES, {"messages": user({"source": {}, "Source": {}})}),
]


@pytest.mark.parametrize(("protocol", "path", "content"), SPELLED_TWICE)
def test_a_name_in_two_spellings_is_refused(protocol: Protocol, path: str, content: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        tools(protocol, path, **content)
    assert refused.value.status == 400


@pytest.mark.parametrize("filling", [b"[],", b"{},", b'"",', b"1,"])
def test_a_body_of_many_small_parts_is_refused_before_it_is_parsed(filling: bytes) -> None:
    body = b'{"model": "m", "a": [' + filling * (LONGEST_BODY // len(filling) - 20) + b"0]}"
    began = time.process_time()
    with pytest.raises(Refused) as refused:
        asked(ANTHROPIC, MESSAGES, body)
    assert refused.value.status == 413
    assert time.process_time() - began < 1  # parsed, it takes several


def test_a_long_text_is_no_part_of_many() -> None:
    text = '[{,"\\' * (LONGEST_BODY // 12)
    assert tools(ANTHROPIC, MESSAGES, messages=user({"type": "text", "text": text})) == set()


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/..", "ü", "a%2f", ""])
def test_a_models_name_in_a_path_leads_nowhere_else(name: str) -> None:
    for protocol in PROTOCOLS.values():
        assert not protocol.gets.fullmatch(f"/v1/models/{name}")
    assert not GEMINI.posts.fullmatch(f"/v1/models/{name}:generateContent")
    assert GEMINI.posts.fullmatch("/v1/models/gemini-2.5-pro:generateContent")


def test_a_models_name_for_google_has_no_second_colon() -> None:
    """Of ``a:generateContent:countTokens`` a server may take the first for the method, and counts are free."""
    assert not GEMINI.posts.fullmatch("/v1beta/models/gemini-2.5-pro:generateContent:countTokens")
    assert GEMINI.posts.fullmatch("/v1beta/models/gemini-2.5-pro:countTokens")


@pytest.mark.parametrize("name", ["claude-\ud800", "a\0b", "a\nb", "a\u202eb", "a" * 201], ids=ascii)
def test_a_models_name_that_cannot_be_written_down_is_refused(name: str) -> None:
    with pytest.raises(Refused) as refused:
        asked(ANTHROPIC, MESSAGES, json.dumps({"model": name}).encode())
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "name", ["x_api_key", "OpenAI_Organization", "X_HTTP_Method_Override", "X_Forwarded_For", "X-Rewrite-URL"]
)
def test_headers_that_some_servers_read_as_others_are_dropped(name: str) -> None:
    assert list(passed({name: "theirs", "x_made_up": "kept"})) == [("x_made_up", "kept")]


def test_headers_that_lead_a_service_elsewhere_do_not_reach_an_upstream() -> None:
    headers = {"Helicone-Target-Url": "https://evil.example", "x-portkey-custom-host": "evil", "anthropic-beta": "a"}
    assert dict(passed(headers, upstream=True)) == {"anthropic-beta": "a"}
    assert dict(passed(headers)) == headers


def test_googles_model_is_in_the_path() -> None:
    found = asked(GEMINI, "/v1beta/models/gemini-2:streamGenerateContent", b'{"model": "other"}')
    assert (found.model, found.stream) == ("gemini-2", True)


def test_errors_have_the_providers_form() -> None:
    assert failure(ANTHROPIC, 403, "no.") == {
        "type": "error", "error": {"type": "permission_error", "message": "sshgate: no."},
    }  # fmt: skip
    assert failure(OPENAI, 429, "no.")["error"]["type"] == "rate_limit_error"
    assert failure(GEMINI, 404, "no.")["error"] == {"code": 404, "message": "sshgate: no.", "status": "NOT_FOUND"}
