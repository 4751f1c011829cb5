r"""What a launcher looks at before its mark: an address that is closed once the network policy is in force. Pure.

A pod's network works some time before its network policies do. So no program of a user may start before somebody has
found such an address closed from inside the pod. The launcher does this: it runs the image's own programs only, and
nothing of a user runs in a new sandbox before the launcher's mark.

Three connections are begun at once, to different servers where the address has several. If one is accepted, the policy
is not in force yet. Closed means: connect(2) has failed in each, or the kernel has sent each SYN and has got an ICMP
message for an answer (a policy that rejects), or has none 0.2 s later (a policy that drops). A look that was slow, or
could not start, counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What a launcher has found, as its mark has it after the process id."""

    CLOSED = b""
    """The address is closed, or there was nothing to look at."""
    OPEN = b"!"
    """It was not found closed within the time."""
    BLIND = b"?"
    """The image has no program that can look, or the pod does not know the address."""


@dataclass(frozen=True, slots=True)
class Probe:
    """An address, and for how many seconds to look at it until it is closed; 0: once.

    An empty address is the API server's service, as every pod has it in its environment.
    """

    host: str
    port: str
    seconds: int

    @property
    def words(self) -> tuple[str, str, str, str]:
        """The arguments of ``LOOK``."""
        return self.host, self.port, str(self.seconds), _BASH


# $0 host, $1 port, $2 seconds; exits with 0: closed, 1: not. /dev/tcp is bash's own; its message has "connect:" only
# where the system call has failed, which happens for want of memory or local ports too. In /proc/net/tcp, state 02 is
# SYN_SENT: without it a container that was given no processor time for a while would count as closed. So it must be so
# both before and after the 0.2 s. Where the pod's node rejects, its message arrives while connect(2) still holds the
# socket: the kernel counts it (LockDroppedIcmps), and fails the connection only after the next SYN, 1 s later. Messages
# about anything else are not in that number; others can make them come at any time. A node sends a pod six of these at
# once, enough for a login's two looks, then one a second; looks without them wait. Closed means two looks in a row:
# where one of several servers is down, the three connections of one look may all lead to it.
_BASH = r"""
printf -v s ":%04X 02 " "$1"
unanswered() {
  local r n=0
  while read -r r; do [[ $r = *"$s"* ]] && n=$((n + 1)); done < <(cat /proc/net/tcp /proc/net/tcp6)
  ((n >= $1))
}
count() {
  local k v
  u=0 c=0
  { read -ra k && read -ra v; } < <(cat /proc/net/netstat)
  [[ ${k[9]}${v[9]} = LockDroppedIcmps[0-9]* ]] && u=${v[9]} c=1
}
look() {
  local f r i n=0 t=5 w=0.02 m=0 b c d u fds=() pids=()
  count
  b=$u d=$c
  for i in 1 2 3; do
    f=
    exec {f}< <({ : 3<>"/dev/tcp/$0/$1"; } 2>&1 && echo open)
    fds+=($f) pids+=($!)
  done
  for f in ${fds[@]}; do
    while r=; read -rt $w -u $f r; i=$?; ((i > 128 && !m && --t > 0)); do
      count
      ((m = c && d && u >= b + 3)) && w=0.001
    done
    if ((i > 128)); then n=$((n + 1)); ((m)) || w=0.01
    else case $r in
      *connect:*refused | *connect:*nreachable | *connect:*o\ route* | *connect:*timed\ out | *connect:*permitted) ;;
      *) n=9
    esac; fi
  done
  ((${#fds[@]} == 3)) || n=9
  if ((0 < n && n < 9)) && unanswered $n; then
    ((m)) || { read -rt 0.2 <> <(:); unanswered $n; } && n=0
  fi
  for f in ${fds[@]}; do exec {f}<&-; done
  kill ${pids[@]}
  ((n == 0))
}
for ((e = SECONDS + $2;;)); do
  look "$@" && { read -t 0.03 <> <(:); look "$@"; } && exit 0
  ((SECONDS >= e)) && exit 1
  read -t 0.03 <> <(:)
done
"""

# busybox has no /dev/tcp and nc, one connection at a time. The line makes a server of TLS close an accepted one.
_NC = (
    "__n=0 __k=$(($(date +%s)+$3));while [ $__n -lt 3 ];do "
    '__x=$(echo|timeout 2 nc -w 1 "$__h" "$__q" 2>&1 >/dev/null);case $?$__x in 0*|124*|143*)__n=0;'
    '[ "$(date +%s)" -lt $__k ]||break;sleep 0.1;;'
    '*refused*|*nreachable*|*"timed out"*|*"o route"*|*permitted*)__n=$((__n+1));;*)__n=9;;esac;done;'
    "case $__n in 3)__f=;;9)__f=?;;*)__f=!;;esac;"
)

LOOK_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin"
"""Where programs to look with are found: not in a home, which has what its user left in an earlier sandbox."""

LOOK = (
    f"printf '\\001';__p=$PATH;PATH={LOOK_PATH};"
    "__f=? __h=${1:-$KUBERNETES_SERVICE_HOST} __q=${2:-$KUBERNETES_SERVICE_PORT};"
    'if [ ! "$__h" ];then :;elif command -v bash >/dev/null;then '
    'BASH_ENV= LC_ALL=C bash -c "$4" "$__h" "$__q" "$3" </dev/null >/dev/null 2>&1;case $? in 0)__f=;;1)__f=!;;esac;'
    f"elif command -v nc >/dev/null;then {_NC}fi;PATH=$__p;"
)
"""Shell code that leaves the ``Verdict`` in ``__f``; its arguments are ``Probe.words``. It first prints the byte that
also begins the mark, so that the exec is known to have started: others wait for their turns on the node."""
