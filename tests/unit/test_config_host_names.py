"""Names that sandboxes may connect to: patterns, presets, and spellings that must not pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshgate.config.host_names import Rule, Rules, canonical, pattern, presets, wish


@pytest.mark.parametrize(
    ("patterns", "name", "port", "allowed"),
    [
        (["a.example"], "a.example", 443, True),
        (["a.example"], "a.example", 80, False),
        (["a.example"], "b.a.example", 443, False),
        (["a.example"], "xa.example", 443, False),
        (["a.example:8443"], "a.example", 8443, True),
        (["a.example:8443"], "a.example", 443, False),
        (["*.a.example"], "b.a.example", 443, True),
        (["*.a.example"], "c.b.a.example", 443, True),
        (["*.a.example"], "a.example", 443, False),
        (["*.a.example"], "xa.example", 443, False),
        (["*.a.example:80"], "b.a.example", 80, True),
        (["A.Example."], "a.example", 443, True),
        (["xn--mnchen-3ya.example"], "xn--mnchen-3ya.example", 443, True),
        (["mirror:80"], "mirror", 80, True),
    ],
)
def test_a_pattern_matches_its_names_at_its_port_only(patterns: list[str], name: str, port: int, allowed: bool) -> None:
    assert Rules.of(tuple(patterns)).allow(name, port) is allowed


@pytest.mark.parametrize(
    ("sent", "compared"),
    [
        ("a.example", "a.example"),
        ("A.EXAMPLE", "a.example"),
        ("a.example.", "a.example"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        ("a.example..", None),
        (".a.example", None),
        ("a..example", None),
        ("", None),
        ("münchen.example", None),
        ("a.example\u3002", None),  # an ideographic full stop, which some programs take for a dot
        ("-a.example", None),
        ("a.example\0.b.example", None),
        ("a.example%2e", None),
        ("user@a.example", None),
        # Addresses in every spelling that some program knows.
        ("127.0.0.1", None),
        ("127.1", None),
        ("2130706433", None),
        ("0x7f000001", None),
        ("0x7f.1", None),
        ("0177.0.0.1", None),
        ("127.0.0.1.", None),
        ("0x", None),
        ("a.example.1", None),
        ("[::1]", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("fe80::1%eth0", None),
        ("x" * 64 + ".example", None),
        (".".join(["x" * 60] * 5), None),
    ],
)
def test_names_are_compared_in_one_form_and_addresses_are_none(sent: str, compared: str | None) -> None:
    assert canonical(sent) == compared


@given(st.text(max_size=40))
def test_what_is_a_name_is_one_again_in_its_own_form(text: str) -> None:
    name = canonical(text)
    if name is not None:
        assert canonical(name) == name
        assert Rule.of(wish(name, 443)).matches(name, 443)


@pytest.mark.parametrize(
    ("wrong", "clause"),
    [
        ("*", "is no name"),
        ("*.example", "half of the internet"),
        ("a.*.example", "is no name"),
        ("10.0.0.1", "no addresses"),
        ("[::1]", "after the colon"),
        ("a.example:0", "a port of 1-65535"),
        ("a.example:65536", "a port of 1-65535"),
        ("a.example:https", "a port of 1-65535"),
        ("https://a.example", "after the colon"),
        ("@nowhere", "no preset '@nowhere': @crates"),
    ],
)
def test_a_wrong_pattern_is_explained(wrong: str, clause: str) -> None:
    with pytest.raises(ValueError, match=clause.replace("*", r"\*")):
        pattern(wrong)


def test_presets_stand_for_names() -> None:
    for preset, names in presets().items():
        assert pattern(preset) == preset
        for name in names:
            rule = Rule.of(name)
            assert Rules.of((preset,)).allow(f"x.{rule.name}" if rule.below else rule.name, rule.port)
    assert set(presets()) == {"@pypi", "@npm", "@debian", "@github", "@golang", "@crates"}
    # Only packages come without TLS, and their programs check signatures.
    assert {name for names in presets().values() for name in names if name.endswith(":80")} <= set(presets()["@debian"])


def test_the_entry_to_ask_for_is_the_narrowest() -> None:
    assert wish("a.example", 443) == "a.example"
    assert wish("a.example", 80) == "a.example:80"
