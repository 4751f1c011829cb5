"""The shell scripts that read and change files of a sandbox for browsers, and what their exit statuses say. Pure."""

from __future__ import annotations

import shlex

from sshgate.stream.interfaces import Exec

# They run in any POSIX shell. $p is the path, $q that of the new name: each has a slash and does not begin with a dash.
# $s is the shell whose working directory counts.
HERE = 'cd "/proc/$s/cwd" 2>/dev/null || cd || exit 49\n'
# A relative path that is changed is never one below the home instead, where that directory cannot be entered.
_CHANGED_HERE = 'cd "/proc/$s/cwd" 2>/dev/null || for each in "$p" "$q"; do case $each in ./?*) exit 41 ;; esac; done\n'
_SIZE = 'size() { stat -L -c %s "$1" 2>/dev/null || wc -c <"$1"; }\n'
_THERE = 'there() { [ -e "$1" ] || [ -L "$1" ]; }\n'
READ = (
    HERE
    + _SIZE
    + '[ -e "$p" ] || exit 44\n[ -f "$p" ] || exit 45\n[ -r "$p" ] || exit 46\n'
    + 'n=$(size "$p") && echo "$n" && exec head -c "$n" "$p"\n'
)
PACK = (
    HERE
    + '[ -e "$p" ] || exit 44\n[ -d "$p" ] || exit 45\n[ -r "$p" ] || exit 46\n'
    + 'command -v tar >/dev/null || { echo "there is no tar in the sandbox." >&2; exit 50; }\n'
    + 'cd "$p" && echo 0 && exec tar -cf - .\n'
)
WRITE = (
    HERE
    + _SIZE
    + _THERE
    + '[ -z "$k" ] || mkdir -p "${p%/*}" 2>/dev/null\n'
    + 'd=${p%/*}; [ -d "${d:-/}" ] || exit 44\n[ ! -d "$p" ] || exit 45\n'
    + 'free() { [ -z "$o" ] || ! there "$p"; }\nfree || exit 43\n'
    # Write to a temporary file and rename it, so that a partial file never has the requested name. The traps remove it
    # when the script is ended, also right after mktemp.
    + "t=\ntrap 'rm -f \"$t\"' EXIT\ntrap 'exit 1' HUP INT TERM\n"
    + 't=$(mktemp "$d/.sshgate-upload.XXXXXX") || exit 46\n'
    + 'cat >"$t" || exit 47\n'
    + 'n=$(size "$t")\n'
    # Detect a truncated upload: compare with the announced size $w, or without one look for the mark $m at the end.
    + 'if [ -n "$w" ]; then [ "$n" = "$w" ] || exit 48\n'
    + 'else [ "$(tail -c 32 "$t" | tr -d "\\000")" = "$m" ] && n=$((n - 32)) || exit 48\n'
    + 'dd if=/dev/null of="$t" bs=1 seek="$n" 2>/dev/null || exit 47; fi\n'
    # A file that is replaced keeps its mode.
    + 'k=$(stat -L -c %a "$p" 2>/dev/null) || k=$(printf %o $((0666 & ~$(umask))))\n'
    # Somebody may have made it while the bytes came.
    + 'chmod "$k" "$t" || exit 47\nfree || exit 43\nmv -f "$t" "$p" || exit 47\n'
    + 'echo "$n"\n'
)
# The right to write to a directory is that to change the names in it.
_WRITABLE = '[ -d "${%s%%/*}/" ] || exit 44\n[ -w "${%s%%/*}/" ] || exit 46\n'
# A link is removed and never followed, also within a tree. $k: a directory with all that is in it.
DELETE = (
    _CHANGED_HERE
    + _THERE
    + 'there "$p" || exit 44\n'
    + _WRITABLE % ("p", "p")
    + 'if [ -L "$p" ] || [ ! -d "$p" ]; then rm -f "$p" || exit 47\n'
    + 'elif [ -n "$k" ]; then rm -rf "$p" || exit 47\n'
    + 'else rmdir "$p" || { [ -z "$(ls -A "$p" | head -c 1)" ] || exit 42; exit 47; }; fi\n'
)
RENAME = (
    _CHANGED_HERE
    + _THERE
    + 'there "$p" || exit 44\nif there "$q"; then exit 43; fi\n'
    + _WRITABLE % ("p", "p")
    + _WRITABLE % ("q", "q")
    # Somebody may make it meanwhile: -n replaces nothing, but may say that all is well; without -T, which not all have,
    # what is renamed would go into a directory of that name.
    + 'e=$(LC_ALL=C mv -nT "$p" "$q" 2>&1) || {\n'
    # Between file systems mv copies, and what it has begun may be there.
    + 'case $e in *"No space left"*|*"quota exceeded"*|*"Permission denied"*|*"inter-device"*|*"cannot remove"*)\n'
    + 'printf "%s\\n" "$e" >&2; exit 47 ;; esac\n'
    + 'if there "$q"; then exit 43; fi; mv -n "$p" "$q" || exit 47; }\n'
    + 'if there "$p"; then exit 43; fi\n'
)
MAKE = (
    _CHANGED_HERE
    + _THERE
    + 'if there "$p"; then exit 43; fi\n'
    + _WRITABLE % ("p", "p")
    + 'mkdir "$p" || { if there "$p"; then exit 43; fi; exit 47; }\n'
)
REFUSALS = {
    41: (409, "conflict", "the working directory cannot be entered by another process; give an absolute path."),
    42: (409, "not_empty", "this directory is not empty."),
    43: (412, "exists", "there is a file or directory of this name already."),
    44: (404, "not_found", "there is no such file or directory in the sandbox."),
    45: (400, "request", "that is not a regular file."),
    46: (403, "denied", "the sandbox does not allow that."),
    48: (400, "request", "the upload broke off."),
}
"""The answers to exit statuses. With any other one the last line on stderr says what is wrong."""


def program(script: str, paths: dict[str, str], words: dict[str, str]) -> Exec:
    """Return the program that runs a script with these variables: of ``paths`` each a path, as ``_word`` has it."""
    values = {name: shlex.quote(word) for name, word in words.items()}
    values |= {name: _word(path) for name, path in paths.items()}
    text = "".join(f"{name}={value}\n" for name, value in values.items()) + script
    return Exec(f"exec /bin/sh -c {shlex.quote(text)}".encode())


def _word(path: str) -> str:
    """Return a shell word for a path: absolute, below the home, or relative to the working directory."""
    if path.startswith("~/"):
        return f'"$HOME"/{shlex.quote(path[2:])}'
    return shlex.quote(path if path.startswith("/") else f"./{path}")
