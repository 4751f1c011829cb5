# Images without a registry: packed here, imported into the cluster, used with `imagePullPolicy: Never`.
# A name without a registry is what the cluster calls docker.io/library/NAME.
# What makes a temporary directory is a subshell, whose trap removes that however it ends.

load() ( # IMAGE SOURCE [archive.py's options for a root file system...]
  local image=$1 source=$2 archive=$2 place
  shift 2
  if [ -d "$source" ]; then
    place=$(mktemp -d)
    trap 'rm -rf "$place"' EXIT
    archive=$place/image.tar
    python3 "$HERE/archive.py" "$@" "docker.io/library/$image" "$source" "$archive"
  fi
  case $(present) in
    node) import_once "$image" "$archive" ;;
    kind) kind load image-archive "$archive" --name "$KIND_NAME" ;;
    *) fail "cannot load an image into the cluster of \$KUBECONFIG; load it there yourself, see sandbox-image/README.md" ;;
  esac
)

images() { ctr --address "$SOCKET" --namespace k8s.io images "$@"; }

import_once() { # IMAGE ARCHIVE: a large archive takes half a minute, so a label remembers which one it was
  local name=docker.io/library/$1 origin
  [ -f "$2" ] || fail "no image archive at '$2'"
  origin=sshgate.archive=$(stat -c '%i-%s-%Y' "$2")
  [[ $(images ls "name==$name") != *"$origin"* ]] || return 0
  images import "$2" >/dev/null
  images label "$name" "$origin" >/dev/null || fail "$2 holds no image called $1"
}

image_present() { [ -n "$(images ls -q "name==docker.io/library/$1")" ]; }

sleeper() { # OUTPUT: a static program that does nothing until told to end
  gcc -O2 -Wall -static -o "$1" "$HERE/pause.c"
}

pause_image() ( # the process that holds a pod's namespaces
  image_present pause:local && return
  local rootfs
  rootfs=$(mktemp -d)
  trap 'rm -rf "$rootfs"' EXIT
  sleeper "$rootfs/pause"
  load pause:local "$rootfs" --entrypoint /pause
)

test_images() { # those that are missing
  image_present sshgate-busybox:latest || busybox_image
  image_present sshgate-noshell:latest || noshell_image
}

test_images_again() { busybox_image; noshell_image; }

busybox_image() ( # a shell and little else: no bash, no tar, no sftp-server
  local rootfs applet
  rootfs=$(mktemp -d)
  trap 'rm -rf "$rootfs"' EXIT
  mkdir -p "$rootfs"/{bin,etc,home/dev,tmp}
  chmod 1777 "$rootfs/tmp" "$rootfs/home/dev"
  # dash, because Debian's busybox shell runs each of busybox's commands, tar too, whether it is in the path or not.
  cp /bin/dash "$rootfs/bin/sh"
  ldd /bin/dash | grep -o '/[^ ]*' | xargs cp --parents --dereference --target-directory "$rootfs"
  cp /bin/busybox "$rootfs/bin/busybox"
  for applet in cat echo env head id kill ls mkdir ps rm sleep stty test touch wc; do ln -s busybox "$rootfs/bin/$applet"; done
  printf 'root:x:0:0::/:/bin/sh\ndev:x:1000:1000::/home/dev:/bin/sh\n' >"$rootfs/etc/passwd"
  printf 'root:x:0:\ndev:x:1000:\n' >"$rootfs/etc/group"
  sleeper "$rootfs/sleeper"
  load sshgate-busybox:latest "$rootfs" --user 1000 --entrypoint /sleeper
)

noshell_image() ( # nothing to start a session with
  local rootfs
  rootfs=$(mktemp -d)
  trap 'rm -rf "$rootfs"' EXIT
  sleeper "$rootfs/sleeper"
  load sshgate-noshell:latest "$rootfs" --user 1000 --entrypoint /sleeper
)
