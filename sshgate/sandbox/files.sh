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
there() { [ -e "$1" ] || [ -L "$1" ]; }
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
# A name cannot hold a slash, so that /newline ends it for certain.
listing() {
  cd -- "$1" || return
  [ -r . ] || fail 'Permission denied' || return
  # Patterns without a match stay as they are: what they name does not exist.
  printf '%s\0' * .[!.]* ..?* . .. | $xargs -0 $stat -c "$kinds /%n/" -- 2>/dev/null
  true
}
# $2: some of the letters c (create), x (must be new), t (truncate), r and w. $3: the mode of a new file.
opened() {
  if [ -d "$1" ]; then fail 'Is a directory' || return; fi
  if [ -e "$1" ]; then
    # Opening a FIFO or a device could wait for ever.
    [ -f "$1" ] || fail 'Invalid argument' || return
    case $2 in *x*) fail 'File exists' || return ;; esac
    case $2 in *r*) [ -r "$1" ] || fail 'Permission denied' || return ;; esac
    case $2 in *w*) [ -w "$1" ] || fail 'Permission denied' || return ;; esac
    case $2 in *t*) : >"$1" ;; esac
    return
  fi
  case $2 in
  *c*)
    case $2 in *x*) if [ -L "$1" ]; then fail 'File exists' || return; fi ;; esac
    (set -C && umask 077 && : >"$1") && $chmod "$3" "$1" && printf new
    ;;
  *) fail 'No such file or directory' ;;
  esac
}
block() { $dd if="$1" bs=$3 skip=$2 count=1 status=none; }
# From $2 on, in blocks of the $3 bytes that are fed if that comes out even.
written() {
  if [ $(($2 % $3)) = 0 ]; then
    $dd of="$1" bs=$3 seek=$(($2 / $3)) count=1 iflag=fullblock conv=notrunc status=none
  else
    $dd of="$1" bs=$3 seek=$2 count=1 iflag=fullblock oflag=seek_bytes conv=notrunc status=none
  fi
}
sized() {
  [ -f "$1" ] || fail 'Invalid argument' || return
  $dd if=/dev/null of="$1" bs=1 seek=$2 count=0 status=none
}
moded() { $chmod "$2" "$1"; }
timed() { $touch -c -a -d "@$2" -- "$1" && $touch -c -m -d "@$3" -- "$1"; }
owned() { $chown "$2:$3" "$1"; }
removed() {
  if [ -d "$1" ] && [ ! -L "$1" ]; then fail 'Is a directory' || return; fi
  $rm -- "$1"
}
directory() {
  if there "$1"; then fail 'File exists' || return; fi
  $mkdir -m "$2" -- "$1"
}
undirectory() { $rmdir -- "$1"; }
renamed() {
  there "$1" || fail 'No such file or directory' || return
  if there "$2"; then fail 'File exists' || return; fi
  $mv -- "$1" "$2"
}
replaced() {
  there "$1" || fail 'No such file or directory' || return
  if [ -d "$2" ] && [ ! -L "$2" ]; then
    if [ -L "$1" ] || [ ! -d "$1" ]; then fail 'Is a directory' || return; fi
    $rmdir -- "$2" || return
  elif [ -d "$2" ]; then
    $rm -- "$2" || return # mv would move into the directory that this link leads to
  fi
  $mv -f -- "$1" "$2"
}
linked() {
  if there "$2"; then fail 'File exists' || return; fi
  $ln -- "$1" "$2"
}
symlinked() {
  if there "$2"; then fail 'File exists' || return; fi
  $ln -s -- "$1" "$2"
}
target() {
  if [ ! -L "$1" ]; then
    there "$1" || fail 'No such file or directory' || return
    fail 'Invalid argument' || return
  fi
  $readlink -- "$1"
}
resolved() { cd -P -- "$1" && pwd -P; }
space() { $stat -f -c '%s %S %b %f %a %c %d %l' -- "$1"; }
synced() { $sync "$1" 2>/dev/null || $sync; }
