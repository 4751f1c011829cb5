"""The shell scripts of side execs. Pure.

Each gets its items as words of ``$0``, prints the items that its question is true for, and a dot at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from signal import Signals

from sshgate.sandbox.launcher import FOREVER, RESIDENT_MARK, SYSTEM_PATH

# Sessions that are ended at a time; the next ones when the container runtime has noticed their ends.
TOGETHER = 8
# More sessions are ended only on a line of input, which comes when nothing is being started in the pod.
FEW = 16
# A shell function: whether a process ignores HUP, which is bit 1 of its SigIgn.
_IGNORES_HANGUP = (
    'ignores_hangup(){ i=0;while read -r k v;do [ "$k" = SigIgn: ]&&i=$v&&break;done <"/proc/$1/status";'
    "case $i in *[13579bdf])return 0;;esac;return 1;};"
)


def signal_item(pid: int, name: str, foreground: bool = False) -> str:
    """An item of ``signal_argv``: signal ``name`` (without SIG) for the process group of ``pid``.

    ``foreground`` selects the foreground group of its terminal instead. Raises ``ValueError`` for an unknown signal, so
    that the number of items that can wait for one process is bounded.
    """
    if f"SIG{name}" not in Signals.__members__:
        raise ValueError(f"not a signal name: {name!r}")
    return f"{'f' if foreground else 'g'}{pid}:{name}"


def taken_item(pid: int) -> str:
    """An item of ``signal_argv`` for the launcher ``pid`` alone: all output of its program has arrived."""
    return f"p{pid}:USR1"


def signal_argv(items: Sequence[str]) -> tuple[str, ...]:
    """The command that sends these signals in this order; a process that is gone is no error."""
    # The foreground group is field 6 of /proc/PID/stat, counted after the command's name, which may hold blanks and
    # brackets. gVisor leaves it 0; then the signal goes to the program's own group, field 3, not to a shell's job.
    # busybox takes no `--` before the group: it would signal the group, fail, and so signal the process once more.
    script = (
        "{ d=--;kill -s 0 -- $$||d=;for a in $0;do n=${a#*:};a=${a%:*};p=${a#?};case $a in "
        'f*)read -r s </proc/$p/stat&&s=${s##*)}&&set -- $s&&{ g=$6;[ "$g" -gt 0 ]||g=$3;'
        'kill -s $n $d "-$g";};;p*)kill -s $n $p;;'
        '*)kill -s $n $d "-$p"||kill -s $n $p;;esac;done;} 2>/dev/null;echo .'
    )
    return ("/bin/sh", "-c", script, " ".join(items))


def end_argv(pids: Sequence[str]) -> tuple[str, ...]:
    """The command that ends the sessions whose leaders are ``pids``: HUP, and KILL after 2 s.

    As when a terminal is hung up, a program that ignores HUP (nohup) or has its own session (setsid) was started to
    stay, and stays. Any other program of the sessions that HUP does not end is killed. After its first word, a script
    for more than ``FEW`` waits for a line of input, or the end of it.
    """
    # Each round reads all processes once, for all sessions. It prints a word at once, which shows that it has started.
    # Fields of /proc/PID/stat after the name: 1 the state, 3 the group, 4 the session.
    script = (
        f"{SYSTEM_PATH}{_IGNORES_HANGUP}"
        'own(){ for f in /proc/[0-9]*/stat;do read -r s <"$f"||continue;p=${f#/proc/};p=${p%/stat};set -- ${s##*)};'
        '[ "$1" != Z ]||continue;case " $0 " in *" $3 "*|*" $4 "*)ignores_hangup $p||echo $p;;esac;'
        "done 2>/dev/null;};"
        # While containerd starts an exec in a pod, it takes 32 ends at most, and the next ones, that of its runc among
        # them, a second each. So an end that it has not noticed yet, a zombie, is waited for, for 10 s at most.
        "noticed(){ i=0;while sleep 0.1;z=;i=$((i+1));[ $i -lt 100 ];do "
        'for p in $b;do read -r s <"/proc/$p/stat"&&case ${s##*)} in " Z"*)z=1;;esac;done 2>/dev/null;'
        '[ "$z" ]||break;done;b=;n=0;};'
        "send(){ n=0;b=;for p in $l;do for s;do kill -s $s $p;done 2>/dev/null;"
        f'case " $0 " in *" $p "*)b="$b $p";n=$((n+1));[ $n -lt {TOGETHER} ]||noticed;;esac;done;}};'
        "over(){ echo .;exit 0;};"
        f'echo begun;{"read -r go;" if len(pids) > FEW else ""}l=$(own);[ "$l" ]||over;send HUP CONT;'
        'for t in 0.1 0.4 0.5 1;do sleep $t;l=$(own);[ "$l" ]||over;done;'
        # Repeated for processes that were started between the reading and the kill.
        'for i in 1 2 3 4 5;do send KILL;l=$(own);[ "$l" ]||over;done;over'
    )
    return ("/bin/sh", "-c", script, " ".join(pids))


def gone_argv(pids: Sequence[str]) -> tuple[str, ...]:
    """The command that prints those of ``pids`` that are no longer processes."""
    return ("/bin/sh", "-c", "for p in $0;do kill -s 0 $p||echo $p;done 2>/dev/null;echo .", " ".join(pids))


def busy_argv(pids: Sequence[str]) -> tuple[str, ...]:
    """The command that prints those of ``pids`` that have a child: shells that run a program, maybe in background."""
    # The parent is field 2 of /proc/PID/stat after the name, which is in brackets and may hold blanks.
    script = (
        'b=;for f in /proc/[0-9]*/stat;do read -r s <"$f"&&set -- ${s##*)}&&b="$b $2";done 2>/dev/null;'
        'for p in $0;do case "$b " in *" $p "*)echo $p;;esac;done;echo .'
    )
    return ("/bin/sh", "-c", script, " ".join(pids))


def anything_argv() -> tuple[str, ...]:
    """The command that prints a word when any program runs in a sandbox without clients, besides this one.

    What keeps the sandbox running does not count: process 1 and what has ``FOREVER`` as its last word. Nor do zombies,
    nor what a hang-up would end in a terminal of ours: its gateway was killed, and the node keeps the terminal. Nor
    does what has ``RESIDENT_MARK``, and the launcher that is its parent.
    """
    # Our programs have no parent in the sandbox. Fields of /proc/PID/stat after the name: 1 the state, 2 the parent, 4
    # the session, 5 the terminal. `read` drops the NULs between the words of a command line.
    script = (
        f"{_IGNORES_HANGUP}"
        't=;b=;h=;k=;for f in /proc/[0-9]*/stat;do read -r s <"$f"||continue;'
        "p=${f#/proc/};p=${p%/stat};set -- ${s##*)};"
        f'b="$b $2";c=;read -r c <"${{f%stat}}cmdline";[ "$c" = "python3-IS-c{RESIDENT_MARK}" ]&&h="$h $p"&&k="$k $2";'
        '[ "$2" = 0 ]&&[ "$5" != 0 ]&&t="$t $p";done 2>/dev/null;'
        'for d in /proc/[0-9]*;do p=${d#/proc/};case $p in 1|$$)continue;;esac;case "$k " in *" $p "*)continue;;esac;'
        'read -r s <"$d/stat"||continue;set -- ${s##*)};[ "$1" = Z ]&&continue;'
        'case "$t " in *" $4 "*)ignores_hangup $p||continue;;esac;'
        'c=;read -r c <"$d/cmdline";case $c in *"$0")continue;;esac;case "$h " in *" $p "*)continue;;*" $2 "*)'
        'case "$c,$b " in *" $p "*);;-*)continue;;esac;;esac;echo busy;break;done 2>/dev/null;echo .'
    )
    return ("/bin/sh", "-c", script, FOREVER)
