# Functions for the far end of a copy without Python. Sent as text; any POSIX sh runs them.
# Answers on stdout end in NUL: P REASON newline PATH (not copied), S SENTENCE (stopped), D COUNT (all in place).
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
  dest=$1 renamed='' skip=0 count=0 part=.sshgate-$3.part
  case $dest in
  '~' | '~/'*) dest=$HOME${dest#'~'} ;;
  /*) ;;
  *) dest=./$dest ;;
  esac
  into=$dest
  if [ ! -d "$dest" ]; then
    case $2:$dest in
    .:* | *:*/)
      bare=$dest
      case $dest in */.) bare=${dest%.} ;; esac
      mkdir "$bare" 2>/dev/null || stop "$dest cannot be made a directory; name another destination."
      ;;
    :*) stop "$dest is not a directory, so several sources cannot go there." ;;
    *)
      renamed=${dest##*/} into=${dest%/*}
      [ "$into" ] || into=/
      [ -d "$into" ] || stop "$into does not exist; make that directory first."
      ;;
    esac
  fi
  cd "$into" || stop "$into cannot be entered."
  trap 'tidy' EXIT
  trap 'exit 1' HUP INT TERM PIPE
}
tidy() {
  [ -d "./$part" ] && chmod -R u+rwx "./$part"
  rm -rf "./$part"
}
# Set the mtime to $1 seconds, without its fraction if touch does not support fractions.
touched() { touch -h -d "@$1" "$2" 2>/dev/null || touch -h -d "@${1%.*}" "$2" 2>/dev/null || [ -L "$2" ] || touch -d "@${1%.*}" "$2"; }

# Put $1 in place as $2 of this directory. Reports the first problem.
place() {
  if [ -L "$2" ] || [ -f "$2" ]; then
    :
  elif [ -d "$2" ]; then
    problem 'a file cannot replace the directory of this name' "$2"
    return 1
  elif [ -e "$2" ]; then
    problem 'a device, socket or FIFO has this name and is left alone' "$2"
    return 1
  fi
  # If $2 is a link to a directory, mv would move $1 into that directory.
  if [ -L "$2" ] && [ -d "$2" ]; then rm -f "$2"; fi
  mv -f "$1" "$2" 2>/dev/null || {
    problem 'cannot be put in place' "$2"
    return 1
  }
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
  sync -f "./$part" 2>/dev/null
  if [ "$renamed" ] && [ "$renamed" != "$1" ]; then move "./$part/t/$1" "./$part/t/$renamed"; fi
  level=0
  merge "./$part/t" .
  printf 'D%s\0' 0
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
  kind=$1
  cd "$2" || stop "$2 cannot be entered."
  [ -e "$3" ] || [ -L "$3" ] || stop "there is no $3 in $2."
  exec 5>&1
  case $kind in
  gnu) set -- --format=pax -S -cf - "$3" ;;
  *) set -- -cf - "$3" ;;
  esac
  told=$({
    {
      {
        {
          tar "$@" 2>&1 >&6 6>&-
          echo "$?" >&4
        } | sockets 6>&-
      } 6>&1 | tee /dev/fd/3 | sha256sum >&4
    } 3>&1 | cat >&5
  } 4>&1)
  printf '\001%s\002' "$told"
  # If tar has ended early, the archive has no end: the caller must end the output, so that the reader does not wait.
  for field in $told; do
    if [ "$field" = 0 ]; then return 0; fi
  done
  return 1
}

# --- one entry at a time, for sandboxes without tar; `skip` counts directories that could not be entered ---

if [ "$(printf abcd | dd iflag=fullblock bs=2 count=1 2>/dev/null)" = ab ]; then
  take() {
    if [ "$1" -ge 65536 ]; then dd iflag=fullblock bs=65536 count=$(($1 / 65536)) 2>/dev/null; fi
    if [ $(($1 % 65536)) -gt 0 ]; then dd iflag=fullblock bs=$(($1 % 65536)) count=1 2>/dev/null; fi
  }
else
  take() { if [ "$1" -gt 0 ]; then dd bs=1 count="$1" 2>/dev/null; fi; }
fi
enter() {
  if [ "$skip" -gt 0 ]; then
    skip=$((skip + 1))
  elif [ -L "./$1" ] || { [ -e "./$1" ] && [ ! -d "./$1" ]; }; then
    problem 'a directory cannot replace what has this name' "$1"
    skip=1
  elif { [ -d "./$1" ] || mkdir -m 700 "./$1" 2>/dev/null; } && cd "./$1" 2>/dev/null; then
    :
  else
    problem 'cannot be made or entered' "$1"
    skip=1
  fi
}
leave() {
  if [ "$skip" -gt 0 ]; then
    skip=$((skip - 1))
  else
    count=$((count + 1))
    chmod "$1" . && touched "$2" .
    cd -P .. || stop 'a directory was moved during the copy.'
  fi
}
# Always consume the $1 bytes, even if the file cannot be written: what follows them is read as commands.
receive() {
  written=1
  if [ "$skip" -gt 0 ]; then
    take "$1" | cat >/dev/null
  else
    rm -rf "./$part"
    take "$1" | { (umask 077 && cat >"./$part") 2>/dev/null || { cat >/dev/null && false; }; } || written=0
  fi
}
finish() {
  if [ "$skip" -gt 0 ]; then return; fi
  got=
  if [ "$written" = 1 ]; then got=$(sha256sum <"./$part"); fi
  if [ "${got%% *}" != "$3" ]; then
    rm -f "./$part"
    problem 'could not be written, or arrived with a wrong checksum' "$4"
    return
  fi
  chmod "$1" "./$part"
  touched "$2" "./$part"
  if place "./$part" "./$4"; then count=$((count + 1)); fi
  rm -f "./$part"
}
symlink() {
  if [ "$skip" -gt 0 ]; then return; fi
  rm -rf "./$part"
  if ln -s "$2" "./$part" 2>/dev/null; then
    touched "$1" "./$part"
    if place "./$part" "./$3"; then count=$((count + 1)); fi
  else
    problem 'cannot be made a symbolic link' "$3"
  fi
  rm -f "./$part"
}
broken() { rm -f "./$part"; }
# $1: the way up to the destination, $2: the path from there.
hardlink() {
  if [ "$skip" -gt 0 ]; then return; fi
  target=$2
  if [ "$renamed" ]; then
    case $2 in
    */*) target=$renamed/${2#*/} ;;
    *) target=$renamed ;;
    esac
  fi
  rm -rf "./$part"
  if ln "./$1$target" "./$part" 2>/dev/null; then
    if place "./$part" "./$3"; then count=$((count + 1)); fi
  else
    problem 'cannot be linked' "$3"
  fi
  rm -f "./$part"
}
end() {
  printf 'D%s\0' "$count"
  exit 0
}

# --- out of the sandbox: one source on stdout, each entry as its kind, numbers and lengths ---

about() { stat -L -c "$1" "./$2" 2>/dev/null || echo "$3"; }
# Whether this directory is in /proc or /sys, where the sizes of files are wrong.
in_kernel() { case $PWD/ in /proc/* | /sys/*) ;; *) return 1 ;; esac; }
in_proc() { case $PWD/ in /proc/*) ;; *) return 1 ;; esac; }
refuse() { printf 'X %s %s\n%s%s' "${#2}" "${#1}" "$2" "$1"; }
# Send one entry. $1: a name in this directory, $2: not empty for the source itself.
tell() {
  if [ -L "./$1" ] && ! in_proc; then
    to=$(readlink "./$1" && echo x)
    to=${to%??}
    printf 'L %s %s %s\n%s%s' "$(stat -c %Y "./$1" 2>/dev/null || echo 0)" "${#1}" "${#to}" "$1" "$to"
  elif [ -L "./$1" ] && { [ ! "$2" ] || [ -d "./$1" ]; }; then
    refuse "$1" "is a link of the kernel's to what a process uses, which cannot be copied"
  elif [ -d "./$1" ]; then
    printf 'E %s %s %s\n%s' "$(about %a "$1" 755)" "$(about %Y "$1" 0)" "${#1}" "$1"
    if (cd "./$1" 2>/dev/null && [ -r . ]); then
      (
        cd "./$1" || exit
        for item in * .[!.]* ..?*; do
          if [ -e "./$item" ] || [ -L "./$item" ]; then tell "$item" ''; fi
        done
      )
    else
      refuse "$1" 'cannot be entered'
    fi
    printf 'U\n'
  elif [ ! -f "./$1" ]; then
    refuse "$1" 'is a FIFO, a socket or a device, and these cannot be copied'
  elif [ ! -r "./$1" ]; then
    refuse "$1" 'cannot be read'
  elif [ ! -s "./$1" ] || in_kernel; then
    # Read only once: the content may differ the next time.
    if ! head -c 67108865 "./$1" 2>/dev/null >"$spool"; then
      refuse "$1" 'does not say its size, and cannot be read'
    elif [ "$(length "$spool")" -gt 67108864 ]; then
      refuse "$1" 'does not say its size, and is longer than 64 MiB'
    else
      content "$1" "$spool"
    fi
  else
    content "$1" "./$1"
  fi
}
length() { stat -L -c %s "$1" 2>/dev/null || wc -c <"$1"; }
# Send the file $1 with the content of $2.
content() {
  size=$(length "$2")
  printf 'F %s %s %s %s\n%s' "$(about %a "$1" 644)" "$(about %Y "$1" 0)" "$((size))" "${#1}" "$1"
  # Always send the announced size, even if the file becomes shorter: the checksum will not match then.
  { cat "$2" 2>/dev/null; cat /dev/zero; } | head -c "$((size))"
  sum=$(sha256sum <"$2" 2>/dev/null)
  printf '%s\n' "${sum%% *}"
}
tree() {
  cd -P "$1" || stop "$1 cannot be entered."
  [ -e "./$2" ] || [ -L "./$2" ] || stop "there is no $2 in $1."
  for spool in "${TMPDIR:-/tmp}" "$HOME" /dev/shm; do
    spool=$spool/.sshgate-$$.part
    if (umask 077 && : >"$spool") 2>/dev/null; then break; fi
  done
  trap 'rm -f "$spool" 2>/dev/null' EXIT
  trap 'exit 1' HUP INT TERM PIPE
  tell "$2" top
  printf 'Z\n'
}
# Whether tar would get the content of a source wrong. $1: its directory, $2: its name there.
beyond_tar() {
  cd -P "$1" 2>/dev/null || return 1
  if in_kernel || [ -S "./$2" ] || { [ -f "./$2" ] && [ ! -s "./$2" ]; }; then return 0; fi
  cd -P "./$2" 2>/dev/null && in_kernel
}
# Report which of some files have content although tar took them for empty. $1: their directory.
empty() {
  cd -P "$1" || exit
  shift
  nothing=$(sha256sum </dev/null)
  if ! cat "$@" >/dev/null 2>&1 || [ "$(cat "$@" 2>/dev/null | sha256sum)" != "$nothing" ]; then
    for item; do
      if [ "$(sha256sum <"$item" 2>/dev/null)" != "$nothing" ]; then
        refuse "${item#./}" 'does not say its size, and tar left out what it holds'
      fi
    done
  fi
  printf 'Z\n'
}
# Print a path with ~ expanded.
home() { case $1 in '~' | '~/'*) printf %s "$HOME${1#'~'}" ;; *) printf %s "$1" ;; esac; }
