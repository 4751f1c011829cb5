"""Login names: what is one, and what every other text is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshgate.access.identity import LoginName
from sshgate.config.values import is_label, is_user


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("user", LoginName("user")),
        ("user+gpu", LoginName("user", "gpu")),
        ("user=work", LoginName("user", None, "work")),
        ("user+gpu=train", LoginName("user", "gpu", "train")),
        ("user=work=build", LoginName("user", None, "work", "build")),
        ("user+gpu=work=new", LoginName("user", "gpu", "work", "new")),
        ("a_", LoginName("a_")),
        ("_a", LoginName("_a")),
        ("a.b@c", LoginName("a.b@c")),
        ("a-b+x-1=y-2", LoginName("a-b", "x-1", "y-2")),
        ("x" * 128, LoginName("x" * 128)),
        (f"u+{'p' * 40}={'n' * 40}", LoginName("u", "p" * 40, "n" * 40)),
        ("root", LoginName("root")),
    ],
)
def test_login_names(text: str, name: LoginName) -> None:
    assert LoginName.parse(text) == name
    assert str(name) == text


def test_a_blank_is_a_plus() -> None:
    assert LoginName.parse("user gpu=train") == LoginName("user", "gpu", "train")
    for text in ("user  gpu", "user a b", "user+a b", "user a+b", " gpu", "user ", "user GPU"):
        with pytest.raises(ValueError, match="not a"):
            LoginName.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ".", "..", "../x", "a/b", "-x", "@x", ".x", "a\n", "a\0", "\na", "$(x)", "`x`", "a;b", "a'b",
        'a"b', "x" * 129, "x" * 300, "\u00fc", "\u0430lice", "user\u200b", "a\x7f",
        "+gpu", "=work", "user+", "user=", "user+=x", "user+gpu=", "user=work=", "user==x", "user=work=X",
        "user=work=x=y", "user+a+b", "user=work+gpu",
        "user+GPU", "user+-a", "user+a-", "user+a_b", "user+a.b", "user=W", f"user+{'p' * 41}", "user+gpu\n",
        "user=x\n",
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        LoginName.parse(text)


@given(st.text(max_size=150))
def test_a_parsed_name_is_safe_everywhere(text: str) -> None:
    """As a file name, in a log line, and its profile and name as parts of Kubernetes names."""
    try:
        name = LoginName.parse(text)
    except ValueError:
        return
    assert str(name) == text.replace(" ", "+")
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._@-]*", name.user)
    for label in (name.profile, name.name):
        assert label is None or (len(label) <= 63 and re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", label))


PARTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,20}", fullmatch=True)
LABELS = st.none() | st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@given(PARTS, LABELS, LABELS)
def test_what_is_written_is_read_back(user: str, profile: str | None, name: str | None) -> None:
    login = LoginName(user, profile, name)
    assert LoginName.parse(str(login)) == login


def test_users_and_labels() -> None:
    assert [is_user(text) for text in ("a", "A.b", ".a", "a+b", "")] == [True, True, False, False, False]
    assert [is_label(text) for text in ("a", "a-b", "A", "a-", "")] == [True, True, False, False, False]
