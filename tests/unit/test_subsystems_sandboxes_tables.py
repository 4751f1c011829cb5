"""Tables of sandboxes and homes are exact."""

from __future__ import annotations

from sshgate.sandbox.interfaces import Listed, ListedHome
from sshgate.session.subsystems.sandboxes import home_table, sandbox_table


def test_sandboxes_are_listed_in_columns() -> None:
    listed = [
        Listed("sshgate-work-0a", "ada", "work", "default", "attached", 305.0, 28_000.0, True, 0.126, 13 << 20),
        Listed("sshgate-ada-1b", "ada", None, "gpu", "starting", 2.0, None),
    ]
    assert sandbox_table(listed) == (
        "NAME  PROFILE  STATE     AGE  LEFT   CPU   MEMORY  HOME  POD\n"
        "work  default  attached  5m   7h46m  0.13  13Mi    yes   sshgate-work-0a\n"
        "-     gpu      starting  2s   -      -     -       -     sshgate-ada-1b\n"
    )


def test_the_operator_sees_whose_they_are() -> None:
    listed = [Listed("pod", "ada@example.org", "work", "default", "detached", 5.0, 60.0)]
    assert sandbox_table(listed, users=True) == (
        "USER             NAME  PROFILE  STATE     AGE  LEFT  CPU  MEMORY  HOME  POD\n"
        "ada@example.org  work  default  detached  5s   1m    -    -       -     pod\n"
    )


def test_homes_are_listed_in_columns() -> None:
    listed = [ListedHome("ada", "work", "10Gi", 90_000.0, True), ListedHome("ada", "x", "1Gi", 61.0, False)]
    assert home_table(listed) == ("NAME  SIZE  AGE     STATE\nwork  10Gi  25h00m  in use\nx     1Gi   1m      kept\n")
