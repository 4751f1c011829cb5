# shellcheck shell=bash
# Building an image where docker, podman or buildah is to be had, and a base for it where none can be pulled.
# Sourced by the build scripts; `build_cached` is what they call.

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/sshgate

fail() { echo "build: $*" >&2; exit 1; }

engine_that_answers() {
  local engine
  for engine in docker podman; do
    if timeout 10 "$engine" info >/dev/null 2>&1; then echo "$engine"; return; fi
  done
  command -v buildah || fail "no docker or podman answers and there is no buildah; run: sudo apt-get install buildah"
}

can_be_had() { # IMAGE
  image_here "$1" || timeout 300 "$engine" pull -q "$1" >/dev/null 2>&1
}

image_here() { # IMAGE
  if [ "${engine##*/}" = buildah ]; then buildah inspect --type image "$1"; else "$engine" image inspect "$1"; fi >/dev/null 2>&1
}

local_base() { # the name of a base image made here; its key covers what goes into it
  local release key
  # shellcheck source=/dev/null
  release=$(. /etc/os-release && echo "$ID-$VERSION_CODENAME")
  key=$( (echo "$release"; find /usr/local/share/ca-certificates -type f -exec cat {} +) | sha256sum | cut -c1-12)
  echo "localhost/sshgate-base:$release-$key"
}

make_local_base() ( # NAME; in a subshell, for its trap
  local name=$1 work rootfs container
  command -v debootstrap >/dev/null || fail "debootstrap is missing; run: sudo apt-get install debootstrap"
  [ "$(id -u)" = 0 ] || fail "a debootstrap base needs root; give a base image by --base"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  rootfs=$work/rootfs
  # shellcheck source=/dev/null
  (. /etc/os-release; [ "$ID" = ubuntu ] && components=main,universe || components=main
    debootstrap --variant=minbase --components="$components" --include=ca-certificates "$VERSION_CODENAME" "$rootfs") >&2
  # A machine whose downloads pass its own authority: pip and npm in the build must know it. In this base only.
  cp -rL /usr/local/share/ca-certificates "$rootfs/usr/local/share/"
  chroot "$rootfs" update-ca-certificates >/dev/null 2>&1
  rm -rf "$rootfs"/var/cache/apt/archives/*.deb "$rootfs"/var/lib/apt/lists/*
  if [ "${engine##*/}" = buildah ]; then
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$rootfs" / >/dev/null
    buildah config --env NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt "$container"
    buildah commit --quiet --rm "$container" "$name" >/dev/null
  else
    tar -C "$rootfs" -c . | "$engine" import --change 'ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt' - "$name" >/dev/null
  fi
)

# The archive of an image is kept under a name made from what goes into it: the same build is done once.
#   build_cached NAME WANTED_BASE DEFAULT_BASE FRESH IMAGE DOCKERFILE CONTEXT FILE...
# WANTED_BASE is an image, `debootstrap`, or `auto`: DEFAULT_BASE where it can be had, else debootstrap. FILEs are
# the paths below CONTEXT that the image is made of. The last line printed is the archive's path.
build_cached() {
  local cached_name=$1 base=$2 default_base=$3 fresh=$4 image=$5 dockerfile=$6 context=$7 engine='' name archive
  shift 7
  local content
  content=$(cd "$context" && find "$@" -type f -not -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
  mkdir -p "$CACHE"
  exec 9>"$CACHE/$cached_name.lock"
  flock 9
  if [ "$base" = auto ]; then # what was built before is taken before a registry is asked
    if [ -f "$(archive_of "$(local_base)")" ]; then base=debootstrap; else base=$default_base; fi
    if [ "$base" != debootstrap ] && [ ! -f "$(archive_of "$base")" ]; then
      engine=$(engine_that_answers)
      can_be_had "$base" || base=debootstrap
    fi
  fi
  if [ "$base" = debootstrap ]; then name=$(local_base); else name=$base; fi
  archive=$(archive_of "$name")
  if $fresh || [ ! -f "$archive" ]; then
    engine=$(engine_that_answers)
    if [ "$base" = debootstrap ]; then
      if $fresh || ! image_here "$name"; then make_local_base "$name"; fi
    fi
    build_archive "$name" "$archive" 9>&-
  fi
  echo "$archive"
}

archive_of() { # BASE; of the build under way
  echo "$CACHE/$cached_name-$( (echo "$content"; echo "$1") | sha256sum | cut -c1-12).tar"
}

build_archive() { # BASE ARCHIVE
  local partial=$2.$$
  if [ "${engine##*/}" = buildah ]; then
    # Without a daemon there may be no right to make namespaces: the build's commands run in a plain chroot.
    buildah build --isolation chroot --network host --layers --build-arg "BASE_IMAGE=$1" --tag "$image" --file "$dockerfile" "$context" >&2
    buildah push --quiet "localhost/$image" "docker-archive:$partial:docker.io/library/$image" >&2
  else
    "$engine" build --build-arg "BASE_IMAGE=$1" --tag "$image" --file "$dockerfile" "$context" >&2
    "$engine" save --output "$partial" "$image"
  fi
  mv "$partial" "$2"
}

usage() { # SCRIPT WORD: its head comment; status 0 if that was asked for
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$1"
  [ "$2" = --help ] && exit 0 || exit 2
}
