"""The local provider's command lines and refusals, without a sandbox."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sshgate.config.model import Address, Profile, Resources
from sshgate.errors import ConfigError
from sshgate.providers.local.bubblewrap import (
    OPEN_FILES,
    PROCESSES,
    Abilities,
    build,
    confine,
    enter,
    memory_of,
)
from sshgate.providers.local.provider import explain, refuse_public
from sshgate.sandbox.launcher import ARGV

SMALL = replace(Profile(), resources=Resources(limits={"memory": "512Mi", "ephemeral-storage": "2Gi"}))


def words(able: Abilities, profile: Profile = SMALL) -> list[str]:
    return build(profile, Path("/somewhere/etc"), 7, able)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4Gi", 4 << 30), ("512Mi", 512 << 20), ("1.5Gi", 3 << 29), ("2G", 2 * 10**9), ("100", 100), ("1e9", 10**9),
        ("5E3", 5000), ("134217728000m", 128 << 20), ("1Pi", 1 << 50),
    ],
)  # fmt: skip
def test_quantities_are_read_as_kubernetes_does(text: str, size: int) -> None:
    assert memory_of(replace(Profile(), resources=Resources(limits={"memory": text}))) == size


def test_what_a_bubblewrap_can_do_is_read_from_its_help() -> None:
    new = "    --disable-userns             Disable\n    --size BYTES                 Set size\n"
    assert Abilities.of(new) == Abilities(sizes=True, closes_users=True)
    assert Abilities.of("    --tmpfs DEST                 Mount new tmpfs\n") == Abilities(False, False)


def test_an_old_bubblewrap_gets_no_word_that_it_does_not_know() -> None:
    old = words(Abilities(sizes=False, closes_users=False))
    assert not {"--size", "--disable-userns"} & set(old)
    assert old.count("--tmpfs") == 3


def test_everything_writable_holds_half_of_the_profiles_memory() -> None:
    output = words(Abilities())
    sizes = [output[place + 1] for place, word in enumerate(output) if word == "--size"]
    assert sizes == [str(256 << 20)] * 3
    assert [output[place + 1] for place, word in enumerate(output) if word == "--tmpfs"] == [
        "/dev/shm",
        "/tmp",
        "/home",
    ]
    assert [output[place + 1] for place, word in enumerate(output) if word == "--remount-ro"] == ["/dev", "/"]


def test_limits_follow_the_profile() -> None:
    output = confine(SMALL, None)
    assert f"ulimit -d {512 << 10}&&" in output[2]
    assert f"ulimit -f {4 << 20}&&" in output[2]
    assert not any(word.startswith("--reuid") for word in output)
    assert {"--reuid=77", "--regid=77", "--clear-groups"} <= set(confine(SMALL, 77))


def test_a_launcher_needs_no_shell_but_its_own() -> None:
    output = enter(77, False, ARGV)
    assert output.count("/bin/sh") == 1
    assert output[-1] == ARGV[-1]
    assert output[-2].endswith(ARGV[2])
    assert enter(77, False, ("/bin/echo", "-c"))[-4:] == ['umask 022;exec 9<&-;exec "$@"', "sh", "/bin/echo", "-c"]


SHELLS = {"dash": ["dash", "-c"], "bash": ["bash", "--posix", "-c"], "busybox": ["busybox", "sh", "-c"]}


@pytest.mark.parametrize("shell", [name for name, words in SHELLS.items() if shutil.which(words[0])])
def test_each_shell_sets_the_limits(shell: str) -> None:
    limits = confine(SMALL, None)[2].removesuffix('exec "$@"')
    output = subprocess.run([*SHELLS[shell], f"{limits}cat /proc/self/limits"], capture_output=True, check=True).stdout
    shown = {line[:26].strip(): line[26:].split()[:2] for line in output.decode().splitlines()[1:]}
    wanted = {
        "Max processes": PROCESSES, "Max open files": OPEN_FILES, "Max core file size": 0,
        "Max file size": 2 << 30, "Max data size": 512 << 20,
    }  # fmt: skip
    assert {name: shown[name] for name in wanted} == {name: [str(size)] * 2 for name, size in wanted.items()}


def test_a_shell_that_cannot_set_the_limits_starts_nothing() -> None:
    limits = confine(SMALL, None)[2].removesuffix('exec "$@"')
    words = ["prlimit", "--nofile=100", *confine(SMALL, 77 if os.geteuid() == 0 else None)[4:], "sh", "-c"]
    done = subprocess.run([*words, f"{limits}echo started"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_refused_namespace_gets_the_line_to_run() -> None:
    output = explain("bwrap: setting up uid map: Permission denied\n")
    assert "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" in output
    assert explain("bwrap: Can't find source path /data\n").endswith("bwrap: Can't find source path /data.")


def test_all_addresses_but_loopback_are_refused_at_once() -> None:
    refuse_public([Address("127.0.0.1", 1), Address("::1", 1), Address("localhost", 1), Address("127.9.9.9", 1)])
    refuse_public([Address("::ffff:127.0.0.1", 1)])  # as check-config
    with pytest.raises(ConfigError) as refused:
        refuse_public([Address("0.0.0.0", 2222), Address("::", 1), Address("10.0.0.1", 1), Address("example.org", 1)])
    assert len(refused.value.mistakes) == 4
    assert "0.0.0.0:2222" in refused.value.mistakes[0]
