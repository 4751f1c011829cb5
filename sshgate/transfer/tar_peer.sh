# Functions for the far end of a copy by tar. Sent as text; any POSIX sh runs them.
# Answers on stdout end in NUL: P REASON newline PATH (not copied), S SENTENCE (stopped), D (done).
# shellcheck shell=sh disable=SC2088,SC2030,SC2031
CDPATH=
unset CDPATH
problem() { printf 'P%s\n%s\0' "$1" "$2"; }
stop() {
  printf 'S%s\0' "$1"
  exit 1
}
# Enter the directory for the top-level entries. $1: destination, $2: name of a single source or empty, $3: random token.
# Sets $renamed to the new name of that source, if it gets one.
begin() {
  dest=$1 renamed='' part=.sshgate-$3.part
  case $dest in
  '~' | '~/'*) dest=$HOME${dest#'~'} ;;
  /*) ;;
  *) dest=./$dest ;;
  esac
  into=$dest
  if [ ! -d "$dest" ]; then
    if [ "$2" = . ] || [ "${dest%/}" != "$dest" ]; then
      bare=$dest
      case $dest in */.) bare=${dest%.} ;; esac
      mkdir "$bare" 2>/dev/null || stop "$dest cannot be made a directory; name another destination."
    elif [ "$2" ]; then
      renamed=${dest##*/} into=${dest%/*}
      [ "$into" ] || into=/
      [ -d "$into" ] || stop "$into does not exist; make that directory first."
    else
      stop "$dest is not a directory, so several sources cannot go there."
    fi
  fi
  cd -P "$into" || stop "$into cannot be entered."
  trap 'tidy' EXIT
  trap 'exit 1' HUP INT TERM PIPE
}
tidy() {
  [ -d "./$part" ] && chmod -R u+rwx "./$part"
  rm -rf "./$part"
}
# Put $1 in place as $2 of this directory. Reports the first problem.
place() {
  if [ -L "$2" ]; then
    # If $2 is a link to a directory, mv would move $1 into that directory.
    if [ -d "$2" ]; then rm -f "$2"; fi
  elif [ -d "$2" ]; then
    problem 'a file cannot replace the directory of this name' "$2"
    return
  elif [ -e "$2" ] && [ ! -f "$2" ]; then
    problem 'a device, socket or FIFO has this name and is left alone' "$2"
    return
  fi
  mv -f "$1" "$2" 2>/dev/null || problem 'cannot be put in place' "$2"
}

# --- a tree from a tar archive on stdin: extracted to a temporary directory, verified, moved into place ---

unpack() {
  mkdir -m 700 "./$part" || stop 'the destination cannot be written.'
  quiet=
  if [ "$2" = gnu ]; then quiet=--warning=no-unknown-keyword; fi
  tar $quiet -xpof - -C "./$part" || stop 'tar in the sandbox could not unpack the copy; nothing was put in place.'
  [ -f "$part/sum" ] || stop 'the copy was cut; nothing was put in place.'
  got=$(cd "./$part" && xargs -0 cat /dev/null <names | sha256sum) || stop 'the copy cannot be checked in the sandbox.'
  [ "${got%% *}" = "$(cat "./$part/sum")" ] || stop 'the checksum does not match; nothing was put in place.'
  if [ -s "$part/modes" ]; then (cd "./$part" && xargs -0 -n 2 chmod <modes); fi
  if ! why=$(sync -f "./$part" 2>&1); then
    case $why in *'Input/output error'* | *'No space left on device'* | *'quota exceeded'*)
      stop 'the disk has lost what it had taken; nothing was put in place.'
      ;;
    esac
  fi
  if [ "$renamed" ] && [ "$renamed" != "$1" ]; then move "./$part/t/$1" "./$part/t/$renamed"; fi
  level=0
  merge "./$part/t" .
  printf 'D\0'
  exit 0
}
# Even its owner cannot move a directory without write permission.
move() {
  if [ -d "$1" ] && [ ! -L "$1" ] && [ ! -w "$1" ]; then
    mode=$(stat -c %a "$1")
    chmod u+w "$1" && mv "$1" "$2" && chmod "$mode" "$2"
  else
    mv "$1" "$2"
  fi
}
merge() {
  for from in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    [ -e "$from" ] || [ -L "$from" ] || continue
    to=$2/${from##*/}
    if [ ! -d "$from" ] || [ -L "$from" ]; then
      place "$from" "$to"
    elif [ -d "$to" ] && [ ! -L "$to" ]; then
      mode=$(stat -c %a "$from")
      touch -r "$from" "./$part/time$level"
      chmod u+w "$from"
      (level=$((level + 1)) && merge "$from" "$to")
      chmod "$mode" "$to"
      touch -r "./$part/time$level" "$to"
    elif [ -e "$to" ] || [ -L "$to" ]; then
      problem 'a directory cannot replace what has this name' "$to"
    else
      move "$from" "$to" || problem 'cannot be put in place' "$to"
    fi
  done
}

# --- a tar archive of one source on stdout, then its status and checksum ---

# Pass on the messages of tar. Note if it has left out a socket, which is no error for tar.
sockets() {
  seen=
  while IFS= read -r line; do
    printf '%s\n' "$line" >&2
    case $line in *': socket ignored')
      [ "$seen" ] || echo socket >&4
      seen=1
      ;;
    esac
  done
}
pack() {
  kind=$1 refused=
  if ! cd -P "$2" 2>/dev/null; then
    refused='no such directory, or it cannot be entered'
  elif [ ! -e "$3" ] && [ ! -L "$3" ]; then
    refused='no such file or directory'
  elif [ -S "$3" ]; then
    refused='is a socket, which cannot be copied'
  elif in_kernel || { [ ! -L "$3" ] && (cd -P "$3" 2>/dev/null && in_kernel); }; then
    refused='is in /proc or /sys, where only Python in the sandbox can copy'
  fi
  if [ "$refused" ]; then
    problem "$refused" "$3"
    return 0
  fi
  exec 5>&1
  case $kind in
  gnu) set -- --format=pax -S -cf - "$3" ;;
  *) set -- -cf - "$3" ;;
  esac
  results=$({
    {
      {
        {
          tar "$@" 2>&1 >&6 6>&-
          echo "$?" >&4
        } | sockets 6>&-
      } 6>&1 | tee /dev/fd/3 | sha256sum >&4
    } 3>&1 | cat >&5
  } 4>&1)
  printf '\001%s\002' "$results"
  # If tar has ended early, the archive has no end: the caller must end the output, so that the reader does not wait.
  for field in $results; do
    if [ "$field" = 0 ]; then return 0; fi
  done
  return 1
}

# tar trusts the sizes of files, which are wrong in /proc and /sys.
in_kernel() { case $PWD/ in /proc/* | /sys/*) ;; *) return 1 ;; esac; }
# Report which of some files have content although tar took them for empty. $1: their directory.
empty() {
  cd -P "$1" || exit
  shift
  nothing=$(sha256sum </dev/null)
  if ! cat "$@" >/dev/null 2>&1 || [ "$(cat "$@" 2>/dev/null | sha256sum)" != "$nothing" ]; then
    for item; do
      if [ "$(sha256sum <"$item" 2>/dev/null)" != "$nothing" ]; then
        problem 'does not say its size, and tar left out what it holds' "${item#./}"
      fi
    done
  fi
  printf 'D\0'
}
# Print a directory with ~ expanded. Without what stands behind it, the shell would take away newlines at its end.
home() { case $1 in '~' | '~/'*) printf %s/. "$HOME${1#'~'}" ;; *) printf %s/. "$1" ;; esac; }
