"""What a login to a named sandbox does: make it, join it, or wait. The pods are values."""

from __future__ import annotations

import pytest

from sshgate.errors import BadRequest, StartFailed
from sshgate.lifecycle.join import Join, Make, Wait, join
from sshgate.lifecycle.records import Stage
from sshgate.lifecycle.schema import user_hash
from tests.unit.lifecycle_values import at, book, claimed, warm


def test_a_named_sandbox_is_made_joined_or_waited_for() -> None:
    there = claimed("a", sandbox="work")
    assert join(None, "ada", "work", None) == Make()
    assert join(there, "ada", "work", None) == Join(there)
    assert join(there, "ada", "work", "default") == Join(there)
    going = claimed("a", sandbox="work", deleting=True)
    assert join(going, "ada", "work", None) == Wait(going, delete=False)
    ended = claimed("a", sandbox="work", stage=Stage.FINISHED)
    assert join(ended, "ada", "work", None) == Wait(ended, delete=True)
    with pytest.raises(BadRequest, match="has the profile 'default'"):
        join(there, "ada", "work", "gpu")


def test_nobody_joins_or_sees_anothers_sandbox() -> None:
    forged = claimed("a", user="bob", sandbox="work", user_hash=user_hash("ada"))
    hers, his = claimed("b", sandbox="work"), claimed("c", user="bob", sandbox="work")
    assert book(hers, his, warm("d")).of_user("bob", at(0)) == [his]
    with pytest.raises(StartFailed, match="in the way"):
        join(his, "ada", "work", None)
    assert join(forged, "ada", "work", None) == Join(forged)  # the hash is what gateways write; the name is for people
    with pytest.raises(StartFailed, match="in the way"):
        join(warm("a"), "ada", "work", None)
