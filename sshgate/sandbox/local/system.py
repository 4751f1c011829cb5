"""What of this machine a local sandbox may see, and whether this machine can make sandboxes at all."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from sshgate.errors import ConfigError, Unavailable
from sshgate.sandbox.local.bubblewrap import HOME, UID, USER, Machine

# Of /etc only what programs need to run alike; never what may hold a secret or tells of this machine's
# people and services (shadow, ssh, hosts, netrc, npmrc, pip.conf, gitconfig, NetworkManager, ...).
ETC = (
    "alternatives", "apt/sources.list.d/.none", "bash.bashrc", "bash_completion", "bash_completion.d",
    "ca-certificates", "ca-certificates.conf", "debian_version", "default/locale", "emacs", "fonts", "gai.conf",
    "host.conf", "inputrc", "issue", "java-17-openjdk", "java-21-openjdk", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "lesskey", "locale.alias", "locale.conf", "localtime", "login.defs", "lsb-release", "magic",
    "magic.mime", "mailcap", "manpath.config", "mime.types", "nanorc", "networks", "os-release", "perl", "pki/tls",
    "profile", "profile.d", "protocols", "python3", "python3.9", "python3.10", "python3.11", "python3.12",
    "python3.13", "redhat-release", "rpc", "screenrc", "services", "shells", "ssl", "ssl/certs", "terminfo",
    "timezone", "tmux.conf", "vim", "wgetrc", "xattr.conf", "xdg", "zsh", "zshrc",
)  # fmt: skip
LARGEST_ETC_FILE = 4 << 20
ROOT_ENTRIES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
NOBODY = 65_534

INSTALL = "bubblewrap is not installed: run `sudo apt install bubblewrap` (or your system's like) and start again."


def fill_etc(target: Path, source: Path = Path("/etc")) -> None:
    """Make a sandbox's /etc in the empty directory ``target``: a subset of ``source``'s, and our accounts."""
    for name in ETC:
        _copy(source / name, target / name)
    ours = {
        "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\n{USER}:x:{UID}:{UID}:{USER}:{HOME}:/bin/bash\n"
        f"nobody:x:{NOBODY}:{NOBODY}:nobody:/nonexistent:/usr/sbin/nologin\n",
        "group": f"root:x:0:\ntty:x:5:\n{USER}:x:{UID}:\nnogroup:x:{NOBODY}:\n",
        "hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
        "resolv.conf": "",
        "machine-id": "",
    }
    for name, text in ours.items():
        (target / name).write_text(text)
        (target / name).chmod(0o644)
    mtab = target / "mtab"
    mtab.symlink_to("../proc/self/mounts")
    target.chmod(0o755)


def _copy(source: Path, target: Path) -> None:
    """Copy what everybody may read, links as links; anything else is left out."""
    try:
        found = source.lstat()
    except OSError:
        return
    if stat.S_ISLNK(found.st_mode):
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_symlink():
            target.symlink_to(source.readlink())
    elif stat.S_ISDIR(found.st_mode):
        if found.st_mode & 0o005 == 0o005:
            target.mkdir(parents=True, exist_ok=True)
            for entry in source.iterdir():
                _copy(entry, target / entry.name)
    elif stat.S_ISREG(found.st_mode) and found.st_mode & 0o004 and found.st_size <= LARGEST_ETC_FILE:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, target)
        except OSError:
            return
        target.chmod(0o755 if found.st_mode & 0o001 else 0o644)


def root_links(root: Path = Path("/")) -> dict[str, str]:
    """The root's entries beside /usr: a link's target, or an empty text for a directory of its own."""
    links = {}
    for name in ROOT_ENTRIES:
        path = root / name
        if path.is_symlink():
            links[f"/{name}"] = str(path.readlink())
        elif path.is_dir():
            links[f"/{name}"] = ""
    return links


def examine(etc: Path) -> Machine:
    """What this machine's bubblewrap and kernel can do. Raises ``Unavailable`` without a bubblewrap."""
    program = shutil.which("bwrap", path=os.defpath + ":/usr/bin:/usr/local/bin")
    if program is None:
        raise Unavailable(INSTALL)
    try:
        text = subprocess.run([program, "--help"], capture_output=True, timeout=10, check=False, env={}).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{program} does not run: {error}; install it anew.") from error
    version = re.match(r"(\d+)\.(\d+)", platform.release())
    return Machine(
        bubblewrap=program,
        etc=etc,
        sized=b"--size " in text,
        closes_user_namespaces=b"--disable-userns" in text,
        counts_processes_by_sandbox=version is not None and (int(version[1]), int(version[2])) >= (5, 14),
    )


def remedy(complaint: str, sysctl: Path = Path("/proc/sys")) -> str:
    """One sentence on why bubblewrap could not make a sandbox here, with the line to run."""

    def value(name: str) -> str:
        try:
            return (sysctl / name.replace(".", "/")).read_text().strip()
        except OSError:
            return ""

    for name, bad, good in (
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ):
        if value(name) == bad and ("ermission" in complaint or "namespace" in complaint or "uid map" in complaint):
            return f"this machine forbids user namespaces: run `sudo sysctl -w {name}={good}` and start again."
    said = complaint.splitlines()[-1].removeprefix("bwrap: ") if complaint else "no reason was given"
    hint = ""
    if "ermitted" in complaint or "ermission" in complaint:
        hint = (
            "; in a container, start that with `--security-opt seccomp=unconfined --security-opt "
            "apparmor=unconfined --security-opt systempaths=unconfined`"
        )
    return f"bubblewrap cannot make a sandbox on this machine ({said}){hint}."


def refuse_public(addresses: Iterable[str]) -> None:
    """Local sandboxes share this machine's kernel: raise ``ConfigError`` for each host that is not loopback."""
    mistakes = []
    for host in addresses:
        try:
            loopback = ip_address(host).is_loopback
        except ValueError:
            loopback = host == "localhost"
        if not loopback:
            mistakes.append(
                f"the local provider listens on loopback only, not on {host or 'every address'}: "
                "set ssh.listen to 127.0.0.1:2222, or use the kubernetes provider."
            )
    if mistakes:
        raise ConfigError(mistakes)


def outside_account(binds: Iterable[Path]) -> tuple[int, int] | None:
    """Under which account sandboxes run outside: ``None`` is the gateway's own.

    Root never runs them as itself but for a bind that root owns: they run as the owner of the first bind,
    so that it can be written to, and as nobody otherwise.
    """
    if os.geteuid() != 0:
        return None
    for bind in binds:
        try:
            found = bind.stat()
        except OSError:
            break
        return None if found.st_uid == 0 else (found.st_uid, found.st_gid)
    return NOBODY, NOBODY
