r"""The one shell command that starts every process, and the line it reads. Pure.

The exec request always carries the same constant ``ARGV``. The launcher turns echo off, prints a mark with
its process id, reads one escaped line from stdin and evaluates it; the line ends in ``exec``. So commands,
environment and secrets never appear in an exec URL (API servers log those) and have no URL length limit,
a launcher can wait in a warm sandbox before anyone has logged in, and signals have a process id to go to.

Raw mode while the line is read: canonical mode would cut it at 4,095 bytes. What is typed before the terminal
is out of raw mode would reach the program as plain bytes, a ^D or ^C among them; so a second mark on a terminal
says when input may follow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sshgate.errors import BadRequest
from sshgate.streams import Request, Shell, Subsystem
from sshgate.terminal import Terminal

SCRIPT = (
    "__s=$(stty -g 2>/dev/null)&&stty raw -echo;"
    "printf '\\001%s\\002' $$;"
    'IFS= read -r __l||exit 255;eval "$(printf %b "$__l")"'
)
ARGV: tuple[str, ...] = ("/bin/sh", "-c", SCRIPT)

NOTHING = b"exit\n"
"""The line for a launcher that shall become nothing."""

# Linux MAX_ARG_STRLEN is 128 KiB with the closing NUL: one argument, here the command, cannot be longer.
LONGEST_COMMAND = 131_071
# Room for a few large variables; the kernel's limit for all of them and the arguments is 2 MiB by default.
LARGEST_ENVIRONMENT = 1_000_000

TERMINAL_MARK = b"\006"
"""What a terminal says once it is out of raw mode; the program's own output follows."""

FOREVER = "2147483647"
"""Seconds for which the process that holds a sandbox open sleeps; by this number it is known."""

UNTAKEN = 256 * 1024
"""The most output, bytes, of a program that the gateway takes from the network whether or not its client reads."""

SERVER_MARK = b"\005"
"""What the sftp subsystem says first where the sandbox has an sftp-server, which follows."""

FILES_MARK = b"\006"
"""What it says where there is none; ``FILES_LOOP`` follows."""

FILES_LOOP = 'while IFS= read -r __l;do eval "$(printf %b "$__l")";done;exit 0'
"""Carries out one escaped line after the other."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SIGNAL = re.compile(r"[A-Z][A-Z0-9]{0,15}\Z")
_ESCAPED = {byte: b"\\0%03o" % byte for byte in range(256) if not 0x20 <= byte < 0x7F or byte == 0x5C}
_LITERAL = re.compile(rb"[\x20-\x5b\x5d-\x7e]+")

SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/sftp-server",
)


@dataclass(frozen=True, slots=True)
class _Parent:
    """The launcher stays, as the program's parent; see ``line``."""

    mark: bytes
    no_input: bool


@dataclass(frozen=True, slots=True)
class Program:
    """What the launcher shall become: the request in the words of the sandbox.

    ``environment`` is what the gateway adds (SSH_CONNECTION, USER, ...); the request's own accepted
    variables come after it. ``shell`` is tried first, then the account's shell, then ``/bin/sh``.
    """

    request: Request
    environment: Mapping[str, bytes] = field(default_factory=dict)
    shell: str = "/bin/bash"


class ReadyMark:
    """Finds the launcher's mark (``\\001PID\\002``) at the start of its output."""

    # More than this before the mark means that what answers is not the launcher.
    LONGEST = 4096

    def __init__(self) -> None:
        self._seen = b""

    def feed(self, data: bytes) -> int | None:
        """Take the next output; returns the process id once the mark is complete.

        Raises ``ValueError`` with what was seen when it cannot be a launcher.
        """
        self._seen += data
        found = re.search(rb"\x01(\d{1,10})\x02", self._seen)
        if found:
            return int(found[1])
        if len(self._seen) > self.LONGEST:
            raise ValueError(self._seen[:200].decode("ascii", "replace"))
        return None


def line(program: Program, end_mark: bytes | None = None, no_input: bool = False) -> bytes:
    """The line for the launcher, with its newline. Raises ``BadRequest`` for what no kernel would start.

    With ``end_mark`` the launcher stays the program's parent, prints the mark on both outputs when the program has
    ended, takes whatever stdin still holds until its end, and only then ends with the program's status. Where stdin
    does not end in the mark too and more than ``UNTAKEN`` was written, it waits for ``taken_argv`` before that. With
    ``no_input`` the program reads from /dev/null and stdin is the launcher's alone: its end is enough.
    """
    parent = None if end_mark is None else _Parent(end_mark, no_input)
    script = b"".join((_terminal(program.request.terminal), _environment(program), _start(program, parent)))
    return escaped(script) + b"\n"


def escaped(script: bytes) -> bytes:
    """The script on one line, as ``printf %b`` undoes it."""
    # b"\\" begins an escape of printf %b; everything not printable is sent as octal.
    return b"".join(
        piece if _LITERAL.match(piece) else b"".join(_ESCAPED[byte] for byte in piece)
        for piece in re.findall(rb"[\x20-\x5b\x5d-\x7e]+|[^\x20-\x5b\x5d-\x7e]+", script)
    )


def kill_argv(pid: int, name: str, foreground: bool = False) -> tuple[str, ...]:
    """The command that sends signal ``name`` to the process group of ``pid`` from a second exec.

    ``foreground`` picks the foreground group of its terminal instead. Raises ``ValueError`` for a name
    that is not a signal's.
    """
    if not _SIGNAL.match(name):
        raise ValueError(f"not a signal name: {name!r}")
    if foreground:
        # Field 8 of /proc/PID/stat, counted after the command's name, which may hold blanks and brackets.
        # gVisor leaves it 0: there it is the program's own group, field 5, and not that of a shell's job.
        script = 's=$(cat /proc/$1/stat)&&s=${s##*)}&&set -- $s&&{ g=$6;[ "$g" -gt 0 ]||g=$3;kill -s "$0" -- "-$g";}'
    else:
        script = 'kill -s "$0" -- "-$1" 2>/dev/null||kill -s "$0" "$1"'
    return ("/bin/sh", "-c", script, name, str(pid))


def taken_argv(pid: int) -> tuple[str, ...]:
    """The command that tells the launcher ``pid``, and nothing else, that all output of its program has come."""
    return ("/bin/sh", "-c", 'kill -s USR1 "$0" 2>/dev/null;exit 0', str(pid))


def end_argv(pid: int) -> tuple[str, ...]:
    """The command that ends what is left of the session of ``pid``, whose leader it is: HUP, and KILL after 2 s.

    As when a terminal is hung up: a program that ignores HUP (nohup) or has a session of its own (setsid) was started
    to stay, and stays. Whatever else of the session does not end of HUP is killed.
    """
    # Of /proc/PID/stat after the name: 1 the state, 3 the group, 4 the session. Bit 1 of SigIgn is HUP.
    script = (
        'own(){ for f in /proc/[0-9]*/stat;do read -r s <"$f"||continue;p=${f#/proc/};p=${p%/stat};set -- ${s##*)};'
        '[ "$1" != Z ]&&{ [ "$3" = "$0" ]||[ "$4" = "$0" ];}||continue;'
        'i=0;while read -r k v;do [ $k = SigIgn: ]&&i=$v;done <"/proc/$p/status";'
        "case $i in *[13579bdf]);;*)echo $p;;esac;done 2>/dev/null;};"
        'l=$(own);[ "$l" ]||exit 0;kill -s HUP $l;kill -s CONT $l;'
        'for i in 1 2 3 4 5 6 7 8 9 10;do l=$(own);[ "$l" ]||exit 0;sleep 0.2;done;'
        # Again, for what was started between a look and its kill.
        'for i in 1 2 3 4 5;do l=$(own);[ "$l" ]||exit 0;kill -s KILL $l 2>/dev/null;done;exit 0'
    )
    return ("/bin/sh", "-c", script, str(pid))


def busy_argv(pid: int) -> tuple[str, ...]:
    """The command that ends with 0 when ``pid`` has a child: when a shell runs something, also in the background."""
    # The fourth field of /proc/PID/stat is the parent; the second, a name in brackets, may hold blanks.
    script = (
        'for f in /proc/[0-9]*/stat;do read -r s <"$f"&&set -- ${s##*)}&&[ "$2" = "$0" ]&&exit 0;done 2>/dev/null;'
        "exit 1"
    )
    return ("/bin/sh", "-c", script, str(pid))


def anything_argv() -> tuple[str, ...]:
    """The command that ends with 0 when anything but what keeps the sandbox alive, and this command, runs in it.

    What keeps it alive is process 1 and a `sleep` of ``FOREVER`` seconds; zombies have ended. `read` drops the
    NULs between the words of a command line.
    """
    script = (
        "for d in /proc/[0-9]*;do p=${d#/proc/};case $p in 1|$$)continue;;esac;"
        'read -r s <"$d/stat"||continue;set -- ${s##*)};[ "$1" = Z ]&&continue;'
        'c=;read -r c <"$d/cmdline";[ "$c" = "sleep$0" ]||exit 0;done 2>/dev/null;exit 1'
    )
    return ("/bin/sh", "-c", script, FOREVER)


def quote(value: bytes) -> bytes:
    """A POSIX shell word that stands for exactly these bytes."""
    return b"'" + value.replace(b"'", b"'\\''") + b"'"


def _terminal(terminal: Terminal | None) -> bytes:
    if terminal is None:
        return b""
    settings = " ".join(_stty(terminal.modes)).encode()
    # A stty that knows less than GNU's must still leave raw mode.
    restore = b'stty "$__s" ' + settings + b' 2>/dev/null||stty "$__s";' if settings else b'stty "$__s";'
    return restore + b"printf '\\006';"


def _environment(program: Program) -> bytes:
    merged: dict[str, bytes] = {**program.environment, **program.request.environment}
    if program.request.terminal is not None:
        merged["TERM"] = program.request.terminal.term.encode("utf-8", "surrogateescape")
    exports = []
    for name, value in merged.items():
        if not _NAME.match(name) or b"\0" in value:
            continue  # no shell can set it; OpenSSH drops such a variable without a word as well
        if len(name) + 1 + len(value) > LONGEST_COMMAND:
            raise BadRequest(f"the variable {name} is longer than a Linux program can be given: 128 KiB at most.")
        exports.append(name.encode() + b"=" + quote(value))
    if sum(map(len, exports)) > LARGEST_ENVIRONMENT:
        raise BadRequest("the environment is too large: 1 MB at most; send fewer or shorter variables.")
    tty = b"export SSH_TTY=$(tty 2>/dev/null);" if program.request.terminal is not None else b""
    return tty + (b"export " + b" ".join(exports) + b";" if exports else b"")


def _start(program: Program, parent: _Parent | None) -> bytes:
    asks = program.request.asks
    if isinstance(asks, Subsystem):
        return _subsystem(asks.name, parent)
    # The variables of the launcher itself must not reach the program; they were never exported.
    shell = (
        b"__S=" + quote(program.shell.encode()) + b';[ -x "$__S" ]||__S=${SHELL:-/bin/sh};[ -x "$__S" ]||__S=/bin/sh;'
        b'export SHELL="$__S" USER="${USER:=$(id -un 2>/dev/null)}" LOGNAME="${LOGNAME:-$USER}";cd 2>/dev/null;'
    )
    if isinstance(asks, Shell):
        return shell + _become(b'"$__S" -l', parent)
    if b"\0" in asks.command:
        raise BadRequest("the command holds a NUL byte, which no program can be given.")
    if len(asks.command) > LONGEST_COMMAND:
        raise BadRequest(
            f"the command is {len(asks.command):,} bytes long and Linux takes {LONGEST_COMMAND:,} at most: "
            "send it on stdin instead, as in `ssh HOST sh < script`."
        )
    # The word after the command is $0: messages then begin with "bash:", as under OpenSSH.
    return shell + _become(b'"$__S" -c ' + quote(asks.command) + b' "${__S##*/}"', parent)


def _become(program: bytes, parent: _Parent | None) -> bytes:
    if parent is None:
        return b"exec " + program
    # Signals go to the whole group: the parent must outlive them to tell the status, and a caught signal is
    # reset in the child. What the shell itself says about a killed child ("Killed") goes to /dev/null.
    return (
        b"trap : HUP INT QUIT TERM USR1 USR2 ALRM PIPE;exec 4>&2 2>/dev/null;"
        + program
        + (b" </dev/null" if parent.no_input else b"")
        + b" 2>&4 4>&-;__r=$?;__m="
        + quote(parent.mark)
        + b';__w=1;trap __w= HUP USR1;printf %s "$__m" >&4;printf %s "$__m";'
        + (b"cat >/dev/null" if parent.no_input else _HELD % (len(parent.mark), UNTAKEN))
        + b";exit $__r"
    )


# Stdin that does not end in the mark had ended before, and can tell nothing: so a signal does, once all output has
# come. /proc/PID/io counts what the launcher and all children that were waited for have written. The signal may come
# just before the `wait` that it is to end, hence one second at a time; for an hour, should nobody ever come.
_HELD = (
    b'if [ "$(tail -c %d||cat >/dev/null)" != "$__m" ];then __n=;'
    b'while read -r __k __v;do [ "$__k" = wchar: ]&&[ "$__v" -gt %d ]&&__n=3600;done </proc/$$/io;'
    b'while [ "$__w" ]&&[ "${__n:-0}" -gt 0 ];do sleep 1 </dev/null >/dev/null 4>&-& wait $!;__n=$((__n-1));done;fi'
)


def _subsystem(name: str, parent: _Parent | None) -> bytes:
    if name != "sftp":
        raise BadRequest(f"there is no subsystem {name!r} here.")
    tries = " ".join(SFTP_SERVERS)
    # Without a server: one line after the other is carried out, see sandbox/files.py.
    return (
        f'cd 2>/dev/null;__p=;for p in {tries} $(command -v sftp-server);do [ -x "$p" ]&&__p=$p&&break;done;'
        '[ "$__p" ]||{ '
        "printf '\\006';"
        f"{FILES_LOOP};}};"
        "printf '\\005';"
    ).encode() + _become(b'"$__p"', parent)


# --- terminal modes (RFC 4254 section 8) ---

_CHARACTERS = {
    1: ("intr", 3), 2: ("quit", 28), 3: ("erase", 127), 4: ("kill", 21), 5: ("eof", 4),
    8: ("start", 17), 9: ("stop", 19), 10: ("susp", 26), 12: ("rprnt", 18), 13: ("werase", 23), 14: ("lnext", 22),
}  # fmt: skip
# Opcode -> name and the value that a fresh Linux terminal already has: only differences are sent.
_FLAGS = {
    30: ("ignpar", 0), 32: ("inpck", 0), 33: ("istrip", 0), 34: ("inlcr", 0), 35: ("igncr", 0), 36: ("icrnl", 1),
    38: ("ixon", 1), 39: ("ixany", 0), 40: ("ixoff", 0), 41: ("imaxbel", 0), 42: ("iutf8", 0),
    50: ("isig", 1), 51: ("icanon", 1), 53: ("echo", 1), 54: ("echoe", 1), 55: ("echok", 1), 56: ("echonl", 0),
    57: ("noflsh", 0), 58: ("tostop", 0), 59: ("iexten", 1), 60: ("echoctl", 1), 61: ("echoke", 1),
    70: ("opost", 1), 72: ("onlcr", 1), 73: ("ocrnl", 0), 74: ("onocr", 0), 75: ("onlret", 0),
}  # fmt: skip


def _stty(modes: Mapping[int, int]) -> list[str]:
    words = []
    for opcode, value in modes.items():
        if opcode in _CHARACTERS:
            name, usual = _CHARACTERS[opcode]
            if value != usual and 0 <= value <= 255:
                words += [name, "undef" if value in (0, 255) else _caret(value)]
        elif opcode in _FLAGS:
            name, usual = _FLAGS[opcode]
            if bool(value) != bool(usual):
                words.append(name if value else "-" + name)
    return words


def _caret(value: int) -> str:
    """A control character in stty's notation; a printable one is quoted for the shell."""
    if value < 32:
        return "'^" + chr(value + 64) + "'"
    if value == 127:
        return "'^?'"
    return quote(bytes([value])).decode("latin-1")
