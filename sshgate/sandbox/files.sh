# The files of a sandbox without an sftp-server, one operation per line. Sent as text; run by any POSIX sh with
# the usual small programs, busybox's without links to them included.
# Answers on stdout: what the operation says, then newline, $token, status, blank, complaint, \2.
# shellcheck shell=sh disable=SC2086,SC2154,SC2254
LC_ALL=C
export LC_ALL
unset CDPATH
applets=" $(busybox --list 2>/dev/null | busybox tr '\n' ' ' 2>/dev/null) "
for c in stat dd mv ln rm mkdir rmdir chmod chown touch readlink xargs sync cat; do
  if command -v $c >/dev/null 2>&1; then
    eval "$c=$c"
  else
    case $applets in
    *" $c "*) eval "$c='busybox $c'" ;;
    *) eval "$c=missing" ;;
    esac
  fi
done
missing() {
  echo "the sandbox lacks a program for this: Function not implemented" >&2
  return 1
}
exec 5>&1
# Carry out "$@"; its stdout is the answer, its stderr the complaint.
answer() {
  complaint=$("$@" 2>&1 1>&5 </dev/null)
  printf '\n%s %s %s\002' "$token" $? "$complaint"
}
# The same for an operation that is fed $1 bytes; they leave the pipe whatever becomes of it.
fed() {
  bytes=$1
  shift
  complaint=$({ $dd bs=$bytes count=1 iflag=fullblock status=none 2>/dev/null | "$@"; } 2>&1 1>&5)
  printf '\n%s %s %s\002' "$token" $? "$complaint"
}
fail() {
  echo "$1" >&2
  return 1
}
# Is something there, and where a link leads to? If not, why: the shell itself does not say.
there() { [ -e "$1" ] || [ -L "$1" ]; }
known() { there "$1" || { $stat -c %f -- "$1" >/dev/null && fail 'No such file or directory'; }; }
parent() { p=${1%/} && behind "${p%/*}/."; }
behind() { [ -e "$1" ] || { $stat -L -c %f -- "$1" >/dev/null && fail 'No such file or directory'; }; }
hello() {
  for program in "$stat" "$dd" "$mv" "$rm"; do
    if [ "$program" = missing ]; then fail 'it lacks one of stat, dd, mv and rm' || return; fi
  done
  [ "$(printf abcd | $dd bs=2 count=1 iflag=fullblock status=none 2>/dev/null)" = ab ] || fail 'its dd is too simple' || return
  umask
}
kinds='%f %u %g %s %X %Y %h'
status() { $stat -c "$kinds" -- "$1"; }
status_behind() { $stat -L -c "$kinds" -- "$1"; }
# Of the directory $d, whose names are the shell's own parameters; both are set by the line that asks this.
listable() {
  [ "$d" ] || fail 'No such file or directory' || return
  behind "$d" || return
  [ -d "$d" ] || fail 'Not a directory' || return
  [ -r "$d" ] || fail 'Permission denied' || return
  echo $count
}
# $2 of them, behind the first $1.
page() {
  cd -- "$d" 2>/dev/null || return 0 # what may be read and not be entered has names alone
  last=$2
  shift $(($1 + 2)) || return
  for name; do
    [ $last -gt 0 ] || break
    last=$((last - 1))
    printf '%s\0' "${name#"$d"/}"
  done | $xargs -0 $stat -c "$kinds /%n/" -- 2>/dev/null
  true
}
# $2: some of the letters c (create), x (must be new), t (truncate), r and w. $3: the mode of a new file.
opened() {
  if [ -d "$1" ]; then
    case $2 in *x*) fail 'File exists' || return ;; esac
    case $2 in *[wct]*) fail 'Is a directory' || return ;; esac
    [ -r "$1" ] || fail 'Permission denied'
    return
  fi
  if [ -e "$1" ]; then
    case $2 in *x*) fail 'File exists' || return ;; esac
    # Opening a FIFO or a device could wait for ever.
    case $1 in
    /dev/null | /dev/zero | /dev/full | /dev/random | /dev/urandom) ;;
    *) [ -f "$1" ] || fail 'Invalid argument' || return ;;
    esac
    case $2 in *r*) [ -r "$1" ] || fail 'Permission denied' || return ;; esac
    case $2 in *w*) [ -w "$1" ] || fail 'Permission denied' || return ;; esac
    case $2 in *t*) : >"$1" ;; esac
    return
  fi
  case $2 in
  *c*)
    if [ -L "$1" ]; then
      case $2 in *x*) fail 'File exists' || return ;; esac
      (umask 077 && : >"$1") && $chmod "$3" "$1" && printf new
    else
      (set -C && umask 077 && : >"$1") && $chmod "$3" "$1" && printf new
    fi
    ;;
  *) behind "$1" ;;
  esac
}
block() { $dd if="$1" bs=$3 skip=$2 count=1 iflag=fullblock status=none; }
# From $2 on, in blocks of the $3 bytes that are fed if that comes out even.
written() {
  if [ $(($2 % $3)) = 0 ]; then
    $dd of="$1" bs=$3 seek=$(($2 / $3)) count=1 iflag=fullblock conv=notrunc status=none
  else
    $dd of="$1" bs=$3 seek=$2 count=1 iflag=fullblock oflag=seek_bytes conv=notrunc status=none
  fi
}
sized() {
  behind "$1" || return
  if [ -d "$1" ]; then fail 'Is a directory' || return; fi
  [ -f "$1" ] || fail 'Invalid argument' || return
  $dd if=/dev/null of="$1" bs=1 seek=$2 count=0 status=none
}
# The last word of these may be -h: what is there itself, be it a link.
moded() {
  at "$1" "$3" || return
  if [ "$3" ] && [ -L "$1" ]; then fail 'Operation not supported' || return; fi
  $chmod "$2" "$1"
}
timed() { at "$1" "$4" && $touch -c -a $4 -d "@$2" -- "$1" && $touch -c -m $4 -d "@$3" -- "$1"; }
owned() { at "$1" "$4" && $chown $4 "$2:$3" "$1"; }
at() { if [ "$2" ]; then known "$1"; else behind "$1"; fi; }
writable() { p=${1%/} && [ -w "${p%/*}/." ] || fail 'Permission denied'; }
removed() {
  if [ -d "$1" ] && [ ! -L "$1" ]; then fail 'Is a directory' || return; fi
  case $1 in */) known "$1" && fail 'Not a directory' || return ;; esac
  $rm -- "$1"
}
directory() {
  if there "$1"; then fail 'File exists' || return; fi
  $mkdir -m "$2" -- "$1"
}
undirectory() { $rmdir -- "$1"; }
named() { [ "$1" ] && [ "$2" ] || fail 'No such file or directory'; }
directory_itself() { [ -d "$1" ] && [ ! -L "$1" ]; }
moved() {
  # mv would look where a link leads to, and that may be nowhere.
  if [ -L "$2" ] && [ ! -e "$2" ] || [ "$1" -ef "$2" ]; then $rm -- "$2" || return; fi
  $mv -f -- "$1" "$2"
}
# As sftp-server does it: a file never replaces anything, what is none may replace a link that leads nowhere.
renamed() {
  known "$1" && parent "$2" || return
  if [ -e "$2" ]; then fail 'File exists' || return; fi
  case $2 in
  */)
    if [ -e "${2%/}" ]; then
      case $1 in */. | */..) fail 'Device or resource busy' || return ;; esac
      if [ -f "$1" ] && [ ! -L "$1" ]; then fail 'File exists' || return; fi
      fail 'Not a directory' || return
    fi
    ;;
  esac
  if [ -L "$2" ]; then
    if directory_itself "$1"; then fail 'Not a directory' || return; fi
    [ -L "$1" ] || fail 'File exists' || return
  fi
  moved "$1" "$2"
}
# As rename(2), which looks at things in this order.
replaced() {
  named "$1" "$2" && parent "$1" && parent "$2" || return
  for p in "$1" "$2"; do
    case $p in / | // | */. | */..) fail 'Device or resource busy' || return ;; esac
  done
  known "$1" || return
  p=${2##*/}
  [ ${#p} -le 255 ] || fail 'File name too long' || return
  if directory_itself "${1%/}"; then
    p=${2%/}
    if [ "${p%/*}/." -ef "$1" ]; then fail 'Invalid argument' || return; fi
  else
    case $1 in */) fail 'Not a directory' || return ;; esac
    case $2 in */) fail 'Not a directory' || return ;; esac
  fi
  # One file by two names: nothing is done then.
  if [ "$1" = "$2" ]; then return; fi
  if [ "$1" -ef "$2" ] && [ ! -L "$1" ] && [ ! -L "$2" ]; then return; fi
  writable "$1" && writable "$2" || return
  if directory_itself "$2"; then
    directory_itself "$1" || fail 'Is a directory' || return
    $rmdir -- "$2" || return
  elif [ -L "$2" ] && directory_itself "$1"; then
    fail 'Not a directory' || return
  elif [ -d "$2" ]; then
    $rm -- "$2" || return # mv would move into the directory that this link leads to
  fi
  moved "$1" "$2"
}
linked() {
  named "$1" "$2" && known "$1" && parent "$2" || return
  p=${2##*/}
  [ ${#p} -le 255 ] || fail 'File name too long' || return
  if there "$2" || there "${2%/}"; then fail 'File exists' || return; fi
  $ln -- "$1" "$2"
}
symlinked() {
  [ "$1" ] || fail 'No such file or directory' || return
  if there "$2"; then fail 'File exists' || return; fi
  $ln -s -- "$1" "$2"
}
target() {
  known "$1" || return
  [ -L "$1" ] || fail 'Invalid argument' || return
  $readlink -- "$1"
}
# What is last in a path may be missing, unless a slash follows.
resolved() {
  p=$1
  while :; do
    case $p in ?*/) p=${p%/} ;; *) break ;; esac
  done
  [ "$p" = "$1" ] || behind "$p" || return
  $readlink -f -- "$p" || behind "$p"
}
space() { $stat -f -c '%s %S %b %f %a %c %d %l' -- "$1"; }
# Old programs take no file. What the disk has lost is reported once, so no second try would find it.
synced() {
  lost=$($sync "$1" 2>&1) && return
  case $lost in *'Input/output error'* | *'No space left on device'* | *'quota exceeded'*) fail "$lost" || return ;; esac
  $sync
}
