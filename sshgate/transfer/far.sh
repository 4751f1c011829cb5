# Functions for the far end of a copy where it has no Python. Sent as text; run by any POSIX sh.
# Answers on stdout end in NUL: P REASON newline PATH (not copied), S SENTENCE (stopped), D COUNT (all in place).
# shellcheck shell=sh disable=SC2088,SC2030,SC2031
CDPATH=
unset CDPATH
problem() { printf 'P%s\n%s\0' "$1" "$2"; }
stop() {
  printf 'S%s\0' "$1"
  exit 1
}
# Find the directory that everything goes into, and go there. $1 destination, $2 name of the only source or
# empty, $3 a fresh token. Leaves the name to give that source in $renamed.
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
# Seconds with a fraction, or without where touch knows none.
touched() { touch -h -d "@$1" "$2" 2>/dev/null || touch -h -d "@${1%.*}" "$2" 2>/dev/null || [ -L "$2" ] || touch -d "@${1%.*}" "$2"; }

# Put $1 in place as $2 of this directory. The first of these that is wrong is told.
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
  # Onto a link to a directory, mv would move into that directory.
  if [ -L "$2" ] && [ -d "$2" ]; then rm -f "$2"; fi
  mv -f "$1" "$2" 2>/dev/null || {
    problem 'cannot be put in place' "$2"
    return 1
  }
}

# --- a tree from a tar archive on stdin: extracted aside, checked, then moved into place ---

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
# A directory that may not be written cannot be moved by its owner either.
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
        tar "$@"
        echo "$?" >&4
      } | tee /dev/fd/3 | sha256sum >&4
    } 3>&1 | cat >&5
  } 4>&1)
  printf '\001%s\002' "$told"
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
# Whatever happens to the file, its bytes must leave the pipe: what follows them is read as commands.
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
# $1 leads up to where the copy began, $2 is the path from there.
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

# --- the other way: one source on stdout, told by kind, numbers and lengths ---

about() { stat -c "$1" "./$2" 2>/dev/null || echo "$3"; }
tell() {
  if [ -L "./$1" ]; then
    to=$(readlink "./$1" && echo x)
    to=${to%??}
    printf 'L %s %s %s\n%s%s' "$(about %Y "$1" 0)" "${#1}" "${#to}" "$1" "$to"
  elif [ -d "./$1" ]; then
    printf 'E %s %s %s\n%s' "$(about %a "$1" 755)" "$(about %Y "$1" 0)" "${#1}" "$1"
    if (cd "./$1" 2>/dev/null && [ -r . ]); then
      (
        cd "./$1" || exit
        for item in * .[!.]* ..?*; do
          if [ -e "./$item" ] || [ -L "./$item" ]; then tell "$item"; fi
        done
      )
    else
      printf 'X 17 %s\ncannot be entered%s' "${#1}" "$1"
    fi
    printf 'U\n'
  elif [ ! -f "./$1" ]; then
    printf 'X 59 %s\nis a FIFO, a socket or a device, and these cannot be copied%s' "${#1}" "$1"
  elif [ ! -r "./$1" ]; then
    printf 'X 14 %s\ncannot be read%s' "${#1}" "$1"
  else
    size=$(about %s "$1" '') && size=${size:-$(wc -c <"./$1")}
    printf 'F %s %s %s %s\n%s' "$(about %a "$1" 644)" "$(about %Y "$1" 0)" "$((size))" "${#1}" "$1"
    # Always so many bytes, even when the file becomes shorter meanwhile: the checksum then tells.
    { cat "./$1" 2>/dev/null; cat /dev/zero; } | head -c "$((size))"
    sum=$(sha256sum <"./$1" 2>/dev/null)
    printf '%s\n' "${sum%% *}"
  fi
}
tree() {
  cd "$1" || stop "$1 cannot be entered."
  [ -e "./$2" ] || [ -L "./$2" ] || stop "there is no $2 in $1."
  tell "$2"
  printf 'Z\n'
}
# A path with its ~ replaced.
home() { case $1 in '~' | '~/'*) printf %s "$HOME${1#'~'}" ;; *) printf %s "$1" ;; esac; }
