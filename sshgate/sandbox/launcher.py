r"""The one shell command that starts every process, and the command line that it reads. Pure.

The exec request always carries the same constant ``ARGV``. The launcher turns echo off, prints a mark with its process
id, reads one escaped line from stdin and evaluates it; the line ends in ``exec``. So commands, environment and secrets
never appear in an exec URL (API servers log those) and have no URL length limit, a launcher can wait in a warm sandbox
before anyone has logged in, and the process id for signals is known.

The terminal is in raw mode while the line is read, because canonical mode would cut it at 4,095 bytes. Bytes that are
typed before the terminal leaves raw mode would reach the program as plain bytes, ^D and ^C among them. Therefore a
second mark on a terminal shows when input may be sent.

Until the program starts, its own tools (stty, id) are those of the system's directories: the image's PATH, which is
kept in ``__P`` meanwhile, may begin with a directory that the sandbox's user can write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sshgate.config.values import is_variable
from sshgate.errors import BadRequest
from sshgate.sandbox.probe import LOOK, Probe, Verdict
from sshgate.stream.interfaces import Request, Shell, Subsystem
from sshgate.stream.terminal import TERM_NAME, Terminal, stty_words

# The image's own directories follow the system's, for images that keep their tools elsewhere.
SYSTEM_PATH = "PATH=/usr/bin:/bin:$PATH;"

# A node keeps the terminal of an exec whose other end has gone, so the launcher itself must stop waiting, after $0
# seconds. Where `read` has no timeout (dash), the terminal has one, of 25.5 s at most: the launcher then reads
# repeatedly and joins the pieces.
_BEGIN = f"__P=$PATH;{SYSTEM_PATH}"
_REST = (
    'IFS= read -t 1 __x 2>/dev/null </dev/null;[ $? = 2 ]&&__n=$(($0/25)) __v="min 0 time 250";'
    "[ -t 0 ]&&__s=$(stty -g 2>/dev/null)&&stty raw -echo $__v;"
    "printf '\\001%s\\002' $$\"$__f\";"
    'if [ "$__v" ];then __l=;until IFS= read -r __x;do [ "$__s" ]&&[ $((__n-=1)) -gt 0 ]||exit 255;__l=$__l$__x;done;'
    '__l=$__l$__x;else IFS= read -r -t $0 __l||exit 255;fi;eval "$(printf %b "$__l")"'
)
SCRIPT = f"{_BEGIN}__f=;{_REST}"
ARGV: tuple[str, ...] = ("/bin/sh", "-c", SCRIPT, "120")
"""Starts a launcher whose command line follows soon."""

PARKED_ARGV: tuple[str, ...] = ("/bin/sh", "-c", SCRIPT, "3600")
"""Starts a launcher that waits for a login; see ``lifecycle.parking``."""

NOTHING = b"exit\n"
"""The command line that ends an unused launcher."""

# Linux MAX_ARG_STRLEN is 128 KiB with the closing NUL: one argument, here the command, cannot be longer.
LONGEST_COMMAND = 131_071
# Bytes, enough for a few large variables. By default the kernel's limit for variables and arguments is 2 MiB.
LARGEST_ENVIRONMENT = 1_000_000

TERMINAL_MARK = b"\006"
"""Printed on a terminal once it has left raw mode; the program's own output follows."""

FOREVER = "2147483647"
"""The last word of the process that keeps a sandbox running, by which it is recognized; also seconds to sleep."""

RESIDENT_MARK = "#sshgate-hold"
"""The first line of programs of ours that belong to a sandbox: what keeps sessions, and the relay of the broker's port.

They are recognized by it among the sandbox's processes, and do not keep it.
"""

UNTAKEN = 256 * 1024
"""Bytes of a program's output that the gateway reads from the network at most while its client does not read."""

SERVER_MARK = b"\005"
"""Printed first by the sftp subsystem where the sandbox has an sftp-server; the server's output follows."""

FILES_LOOP = 'while IFS= read -r __l;do eval "$(printf %b "$__l")";done;exit 0'
"""Runs where there is no sftp-server, after the byte 6; evaluates one escaped line after the other."""

KILLED = b"\x18"
"""Follows the end mark on stderr where a signal killed the program."""

USUAL_TERM = "xterm-256color"
_TERMS_AS_THEY_ARE = (USUAL_TERM, "dumb", "unknown")
_READY = re.compile(rb"\x01(\d{1,10})([!?]?)\x02")
_ESCAPED = {byte: b"\\0%03o" % byte for byte in range(256) if not 0x20 <= byte < 0x7F or byte == 0x5C}
_LITERAL = re.compile(rb"[\x20-\x5b\x5d-\x7e]+")

SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/sftp-server",
)
USUAL_SFTP_SERVER = SFTP_SERVERS[0].encode()
"""SSH_ORIGINAL_COMMAND of the sftp subsystem under a forced command; the sandbox's own server replaces it."""


@dataclass(frozen=True, slots=True)
class _Parent:
    """The launcher stays as the program's parent; see ``line``."""

    mark: bytes
    no_input: bool


@dataclass(frozen=True, slots=True)
class Program:
    """What the launcher turns into: a request, and how the sandbox is to run it.

    ``environment`` is what the gateway adds (SSH_CONNECTION, USER, ...); the request's accepted variables override it.
    ``shell`` is tried first, then ``$SHELL``, then ``/bin/sh``.
    """

    request: Request
    environment: Mapping[str, bytes] = field(default_factory=dict)
    shell: str = "/bin/bash"
    login: str = ""
    """The login name; where the image supports it, it becomes another name of the sandbox's account."""


class ReadyMark:
    """Finds the launcher's mark (``\\001PID\\002``) at the start of its output; ``verdict`` is what it has found."""

    # Bytes. More output without a mark means that it is not the launcher's.
    LONGEST = 4096

    def __init__(self) -> None:
        self.verdict = Verdict.CLOSED
        self._seen = b""

    def feed(self, data: bytes) -> int | None:
        """Take the next output. Returns the process id once the mark is complete, ``None`` before.

        Raises ``ValueError`` with the start of the output when it cannot be a launcher's.
        """
        start = max(0, len(self._seen) - 12)
        self._seen += data
        found = _READY.search(self._seen, start)
        if found:
            self.verdict = Verdict(found[2])
            return int(found[1])
        if len(self._seen) > self.LONGEST:
            raise ValueError(self._seen[:200].decode("ascii", "replace"))
        return None


def looking(argv: Sequence[str], probe: Probe) -> tuple[str, ...]:
    """``ARGV`` or ``PARKED_ARGV`` for a launcher that looks at an address before it prints its mark."""
    return (*argv[:2], f"{_BEGIN}{LOOK}{_REST}", argv[3], *probe.words)


def line(program: Program, end_mark: bytes | None = None, no_input: bool = False) -> bytes:
    """The command line for the launcher, with its newline.

    With ``end_mark`` the launcher stays the program's parent. When the program has ended, it prints the mark on both
    outputs, reads the rest of stdin, and then exits with the program's status. Where stdin does not end in the mark as
    well and more than ``UNTAKEN`` bytes were written, it first waits for a signal (``side_scripts.taken_item``).

    Args:
        end_mark: random bytes that show the end of the program's output; ``None``: the launcher becomes the program.
        no_input: the program reads from /dev/null. Stdin is the launcher's alone, and its end is enough.

    Raises:
        BadRequest: no kernel would start this program.
    """
    parent = None if end_mark is None else _Parent(end_mark, no_input)
    script = b"".join((_terminal(program.request.terminal), _environment(program), _start(program, parent)))
    return escaped(script) + b"\n"


def held_script(program: Program) -> bytes:
    """The script for a shell on a terminal that the resident of a sandbox keeps; it becomes the program.

    Descriptor 3, from which it was read, is closed first. Raises ``BadRequest`` as ``line`` does.
    """
    terminal = program.request.terminal
    assert terminal is not None
    words = b" ".join(quote(word.encode("latin-1")) for word in stty_words(terminal.modes))
    begin = f"exec 3<&-;__P=$PATH;{SYSTEM_PATH}".encode() + (b"stty " + words + b" 2>/dev/null;" if words else b"")
    return begin + _environment(program) + _start(program, None)


def escaped(script: bytes) -> bytes:
    """The script on one line, escaped so that ``printf %b`` restores it."""
    # A backslash begins an escape of printf %b; it and everything that is not printable are sent as octal.
    return b"".join(
        piece if _LITERAL.match(piece) else b"".join(_ESCAPED[byte] for byte in piece)
        for piece in re.findall(rb"[\x20-\x5b\x5d-\x7e]+|[^\x20-\x5b\x5d-\x7e]+", script)
    )


def quote(value: bytes) -> bytes:
    """A POSIX shell word whose value is exactly these bytes."""
    return b"'" + value.replace(b"'", b"'\\''") + b"'"


def _terminal(terminal: Terminal | None) -> bytes:
    if terminal is None:
        return b""
    settings = b" ".join(quote(word.encode("latin-1")) for word in stty_words(terminal.modes))
    # A stty that does not know all settings of GNU's must still leave raw mode.
    restore = b'stty "$__s" ' + settings + b' 2>/dev/null||stty "$__s";' if settings else b'stty "$__s";'
    return restore + b"printf '\\006';"


def _environment(program: Program) -> bytes:
    merged: dict[str, bytes] = {**program.environment, **program.request.environment}
    terminal = program.request.terminal
    if terminal is not None:
        merged["TERM"] = terminal.term.encode("utf-8", "surrogateescape")
    path = merged.pop("PATH", b"\0")
    exports = []
    for name, value in merged.items():
        if not is_variable(name) or b"\0" in value:
            continue  # no shell can set it; OpenSSH also drops such a variable silently
        if len(name) + 1 + len(value) > LONGEST_COMMAND:
            raise BadRequest(f"the variable {name} is longer than a Linux program can be given: 128 KiB at most.")
        exports.append(name.encode() + b"=" + quote(value))
    if sum(map(len, exports)) > LARGEST_ENVIRONMENT:
        raise BadRequest("the environment is too large: 1 MB at most; send fewer or shorter variables.")
    return b"".join(
        (
            b"export SSH_TTY=$(tty 2>/dev/null);" if terminal is not None else b"",
            b"__P=" + quote(path) + b";" if b"\0" not in path else b"",
            b"export " + b" ".join(exports) + b";" if exports else b"",
            _described(terminal.term) if terminal is not None else b"",
        )
    )


def _described(term: str) -> bytes:
    """Set TERM to xterm-256color where the sandbox has no terminfo entry for ``term`` but one for that."""
    if term in _TERMS_AS_THEY_ARE or not TERM_NAME.match(term):
        return b""
    own, usual = (f'[ -e "$__d/{name[0]}/{name}" ]'.encode() for name in (term, USUAL_TERM))
    return (
        b'IFS=:;__k=;for __d in "$TERMINFO" "$HOME/.terminfo" /etc/terminfo /lib/terminfo /usr/share/terminfo '
        b"/usr/lib/terminfo /usr/local/share/terminfo $TERMINFO_DIRS;do "
        + (own + b"&&__k=&&break;" + usual + b"&&__k=1;done;unset IFS;")
        + (b'[ "$__k" ]&&TERM=' + USUAL_TERM.encode() + b";")
    )


def _start(program: Program, parent: _Parent | None) -> bytes:
    asks = program.request.kind
    if isinstance(asks, Subsystem):
        return _subsystem(asks, parent)
    original = program.environment.get("SSH_ORIGINAL_COMMAND") == USUAL_SFTP_SERVER
    # The variables of the launcher itself must not reach the program; they were never exported.
    shell = (
        b"__S=" + quote(program.shell.encode()) + b';[ -x "$__S" ]||__S=${SHELL:-/bin/sh};[ -x "$__S" ]||__S=/bin/sh;'
        b'export SHELL="$__S" USER="${USER:=$(id -un 2>/dev/null)}" LOGNAME="${LOGNAME:-$USER}";cd 2>/dev/null;'
        + (_ACCOUNT % quote(program.login.encode()) if program.login else b"")
        + (_server() + b'export SSH_ORIGINAL_COMMAND="${__p:-$SSH_ORIGINAL_COMMAND}";' if original else b"")
    )
    if isinstance(asks, Shell):
        return shell + _LOGIN_SHELL + _become(b'"$@"', parent)
    if b"\0" in asks.command:
        raise BadRequest("the command holds a NUL byte, which no program can be given.")
    if len(asks.command) > LONGEST_COMMAND:
        raise BadRequest(
            f"the command is {len(asks.command):,} bytes long and Linux takes {LONGEST_COMMAND:,} at most: "
            "send it on stdin instead, as in `ssh HOST sh < script`."
        )
    # The word after the command is $0: messages then begin with "bash:", as under OpenSSH.
    return shell + b"__c=" + quote(asks.command) + b";" + _become(b'"$__S" -c "$__c" "${__S##*/}"', parent)


# The file is the one of libnss-extrausers. Its first line is the account itself; a copy of it under the login name
# makes ~LOGIN the home directory.
_ACCOUNT = (
    b"__f=/var/lib/extrausers/passwd;if [ -w $__f ];then __u=%s;__l=;while IFS=: read -r __n __v;do "
    b'[ "$__n" = "$__u" ]&&__l=&&break;__l=${__l:-$__v};done <$__f;'
    b'[ "$__l" ]&&printf "%%s:%%s\\n" "$__u" "$__l" >>$__f;fi;'
)

# A login shell's $0 is "-bash", which needs `exec -a`: bash can do this for any shell, busybox for its own. Bash is not
# used where BASH_ENV is set, because it would read that file.
_LOGIN_SHELL = (
    b"__b=;case ${BASH_ENV:+no}$__S in /*/bash)__b=$__S;;"
    b"/*)for __d in /bin/bash /usr/bin/bash;do [ -x $__d ]&&__b=$__d&&break;done;;esac;"
    b'if [ "$__b" ];then set -- "$__b" -c \'exec -a "-${0##*/}" "$0"\' "$__S";'
    b'elif (exec -a x true) 2>/dev/null;then set -- -a "-${__S##*/}" "$__S";else set -- "$__S" -l;fi;'
)


def _become(program: bytes, parent: _Parent | None) -> bytes:
    program = b'export PATH="$__P";exec ' + program
    if parent is None:
        return program
    # Signals go to the whole process group. The parent catches them, to survive and report the status; in the child
    # they are reset. This shell prints a message about a child that a signal killed ("Killed"; none for INT and PIPE).
    # The message is not the program's output, but distinguishes a kill from `exit 137`: it goes into the pipe of an
    # empty here-document, and KILLED then follows the mark. Where there is no such pipe, it goes to /dev/null.
    return (
        b"trap : HUP INT QUIT ILL ABRT FPE USR1 SEGV USR2 PIPE ALRM TERM;exec 4>&2 2>/dev/null;__k=;"
        b"command exec 3<<.\n\n.\n"
        b"[ -w /proc/self/fd/3 ]&&command exec 2>/proc/self/fd/3&&__k=1;("
        + program
        + (b" </dev/null" if parent.no_input else b"")
        + b' 2>&4 3<&- 4>&-);__r=$?;exec 2>/dev/null;[ "$__k" ]&&{ __k=;while read -r __v;do __k=$__k$__v;done <&3;'
        b"exec 3<&-;};__m="
        + quote(parent.mark)
        + b';__w=1;trap __w= HUP USR1;printf "%s${__k:+\\030}" "$__m" >&4;printf %s "$__m";'
        + (b"cat >/dev/null" if parent.no_input else _HELD % (len(parent.mark), UNTAKEN))
        + b";exit $__r"
    )


# Stdin that does not end in the mark had ended earlier, so the gateway cannot use it to confirm that all output has
# arrived; it sends a signal instead. /proc/PID/io counts what the launcher and the children that it waited for have
# written. The signal may arrive just before the `wait` that it should interrupt, so each wait is one second; after an
# hour the launcher exits without it.
_HELD = (
    b'if [ "$(tail -c %d||cat >/dev/null)" != "$__m" ];then __n=;'
    b'while read -r __k __v;do [ "$__k" = wchar: ]&&[ "$__v" -gt %d ]&&__n=3600;done </proc/$$/io;'
    b'while [ "$__w" ]&&[ "${__n:-0}" -gt 0 ];do sleep 1 </dev/null >/dev/null 4>&-& wait $!;__n=$((__n-1));done;fi'
)


def _server() -> bytes:
    """Shell code that sets ``__p`` to the sandbox's sftp-server, or to nothing."""
    tries = " ".join(SFTP_SERVERS)
    return f'__p=;for p in {tries} $(command -v sftp-server);do [ -x "$p" ]&&__p=$p&&break;done;'.encode()


def _subsystem(asks: Subsystem, parent: _Parent | None) -> bytes:
    if asks.name != "sftp":
        raise BadRequest(f"there is no subsystem {asks.name!r} here.")
    # Without a server, FILES_LOOP evaluates the lines that sandbox/shell_files.py sends.
    start = b"cd 2>/dev/null;%s[ \"$__p\" ]||{ printf '\\006';%s;};printf '\\005';" % (_server(), FILES_LOOP.encode())
    return start + _become(b" ".join((b'"$__p"', *map(quote, asks.options))), parent)
