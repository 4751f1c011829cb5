"""A hostile user in a sandbox of the deployed gateway: what there is to find, and what can be used up."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.rig.deployed import Deployed
from tests.rig.manifests import kubectl
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

# The kubelet looks at disks every 10 s, and the runtime tells it of them as rarely.
EVICTED = 110.0
CHILDREN = 2600  # more than podPidsLimit of the tests' nodes
# Writes until it is stopped, and far less than would hurt anybody: bounded here too.
FILL = "head -c 400M /dev/zero > fill; sync; echo written; exec sleep 300"
# 600 MiB at most, in a sandbox of 192 MiB.
HOG = 'python3 -c "held = [bytearray(10 << 20) for _ in range(60)]; print(len(held))"'
# Its children keep nothing open that the session would wait for.
BOMB = f"""python3 -c '
import os, signal
try:
    for number in range({CHILDREN}):
        if os.fork() == 0:
            os.closerange(0, 3)
            signal.pause()
    print("all")
except OSError as error:
    print(number, error.strerror)
'"""


@pytest.fixture(scope="module")
def filler(deployed: Deployed, dev: Ssh) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody who fills the disk, from before the other tests on."""
    with dev.as_user("dev+small").start(FILL) as client:
        yield client
        client.kill()


@pytest.fixture(autouse=True)
def meanwhile(filler: subprocess.Popen[bytes], deployed: Deployed, dev: Ssh) -> Iterator[None]:
    """Around every attack: the node is well, no gateway restarts, and another user's login goes on working."""
    before = restarts(deployed)
    yield
    assert dev.run("echo in").out == b"in\n"
    assert restarts(deployed) == before
    ready = 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}'
    assert set(kubectl("get", "nodes", f"--output={ready}").split()) == {"True"}


def restarts(deployed: Deployed) -> dict[str, int]:
    """How often each of the gateway's pods has restarted; those that are ending, of tests before this one, may go."""
    living = [pod for pod in deployed.gateway.pods() if "deletionTimestamp" not in pod["metadata"]]
    counts = {pod["metadata"]["name"]: pod["status"].get("containerStatuses", []) for pod in living}
    return {name: sum(one["restartCount"] for one in statuses) for name, statuses in counts.items()}


@pytest.mark.parametrize(
    ("what", "command", "found"),
    [
        ("a service account token", "find / -path /proc -prune -o -name token -path '*serviceaccount*' -print", b""),
        ("a token in the environment", "env | grep -i token", b""),
        ("services in the environment", "env | grep _SERVICE_ | grep -v ^KUBERNETES_", b""),
        ("capabilities", "grep -E '^Cap(Prm|Eff|Bnd|Amb)' /proc/self/status | grep -v '0000000000000000$'", b""),
        ("new privileges", "grep NoNewPrivs /proc/self/status | grep -v 1$", b""),
        ("no system call filter", "grep '^Seccomp:' /proc/self/status | grep -v 2$", b""),
        ("root", "id -u | grep -x 0", b""),
        ("a way to root", "for tool in sudo su pkexec; do $tool -n true </dev/null && echo $tool; done", b""),
        ("a user namespace", "unshare --user --map-root-user true && echo made", b""),
        ("a mount", "mount -t tmpfs none /mnt && echo mounted", b""),
        ("a runtime's socket", "find / -path /proc -prune -o -type s -print", b""),
        ("a block device", "find /dev -type b", b""),
        ("kernel memory", "head -c 1 /dev/mem /dev/kmem /proc/kcore", b""),
        ("other processes than its own", "ps -e -o comm= | grep -vE '^(tini|sleep|sh|bash|ps|grep|timeout)$'", b""),
        ("a kernel setting to change", "echo 1 > /proc/sys/kernel/panic && echo changed", b""),
        ("a file of the node", "ls /host /rootfs /var/lib/kubelet /etc/rancher", b""),
    ],
)  # fmt: skip
def test_there_is_nothing_to_find(dev: Ssh, what: str, command: str, found: bytes) -> None:
    # What waits in a warm sandbox to keep sessions leaves seconds after a program has begun that it does not keep.
    look = f"there=$({{ {command}; }} 2>/dev/null)"
    ended = dev.run(f'for _ in $(seq 80); do {look}; [ -n "$there" ] || break; sleep 0.1; done; printf %s "$there"')
    assert (ended.status, ended.out) == (0, found), f"{what}: {ended.both}"


def test_nothing_of_the_node_is_mounted_but_the_pods_own_files(dev: Ssh) -> None:
    """Mounts that are neither the image nor made by the kernel are what the kubelet writes for every pod."""
    kernel = "proc|sysfs|tmpfs|devpts|mqueue|cgroup2?|overlay"
    mounts = dev.run(f"awk '$3 !~ /^({kernel})$/ {{print $2}}' /proc/mounts")
    assert set(mounts.out.split()) <= {b"/etc/hosts", b"/etc/hostname", b"/etc/resolv.conf", b"/dev/termination-log"}


def test_a_fork_bomb_ends_at_the_border_of_its_sandbox(dev: Ssh) -> None:
    number, _, reason = dev.run(BOMB).out.decode().strip().partition(" ")
    assert reason == "Resource temporarily unavailable"
    assert 100 < int(number) < CHILDREN


def test_a_memory_hog_is_killed_in_its_sandbox(dev: Ssh) -> None:
    ended = dev.as_user("dev+small").run(HOG)
    assert ended.status != 0
    assert b"60" not in ended.out


def test_memory_backed_files_count_as_memory(dev: Ssh) -> None:
    ended = dev.as_user("dev+small").run("head -c 600M /dev/zero > /dev/shm/fill && echo written")
    assert ended.status != 0
    assert ended.out == b""


def test_who_fills_the_disk_is_evicted(filler: subprocess.Popen[bytes]) -> None:
    until(lambda: filler.poll() is not None, EVICTED, "the eviction")
    assert filler.stderr is not None
    report = filler.stderr.read().decode()
    assert filler.returncode != 0
    assert "ephemeral" in report, report
