# Where the programs come from: Debian packages; Kubernetes and its addons from Go modules, built once and kept in $CACHE.

KUBERNETES_VERSION=v1.34.4
# A directory with ready binaries, NAME.xz, saves the builds.
READY=${SSHGATE_CLUSTER_BINARIES:-$HERE/../../../shared/cluster}

declare -A NEEDS=([containerd]=containerd [runc]=runc [/usr/lib/cni/bridge]=containernetworking-plugins
  [iptables]=iptables [ipset]=ipset [socat]=socat [gcc]=gcc [/usr/include/signal.h]=libc6-dev [buildah]=buildah [debootstrap]=debootstrap
  [/bin/busybox]=busybox-static [ip]=iproute2 [openssl]=openssl [xz]=xz-utils [python3]=python3 [sysctl]=procps [flock]=util-linux)

packages() {
  local program missing=()
  for program in "${!NEEDS[@]}"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || [ -e "$program" ] || missing+=("${NEEDS[$program]}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "packages are missing; run: sudo apt-get install --no-install-recommends ${missing[*]}"
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2
}

hyperkube() { KUBECACHEDIR=$STATE/kubectl-cache "$STATE/hyperkube" "$@"; }

hyperkube_program() { # Kubernetes and etcd as one binary, $STATE/hyperkube
  local source key number=${KUBERNETES_VERSION#v}
  source=$HERE/hyperkube
  key=$(cat "$source"/{main.go,go.mod,go.sum} | sha256sum | cut -c1-12)
  cached "hyperkube-$KUBERNETES_VERSION-$key" hyperkube build_hyperkube "$source" "$number"
  ln -sfn "$CACHE/hyperkube-$KUBERNETES_VERSION-$key" "$STATE/hyperkube"
}

build_hyperkube() { # SOURCE NUMBER OUTPUT
  local version=k8s.io/component-base/version
  (cd "$1" && CGO_ENABLED=0 go build -trimpath -o "$3" \
    -ldflags "-s -w -X $version.gitVersion=v$2 -X $version.gitMajor=${2%%.*} -X $version.gitMinor=$(cut -d. -f2 <<<"$2")" .)
}

kube_router_program() { # the controller by which k3s enforces network policies, $STATE/kube-router
  cached kube-router-v2.1.0 kube-router build_module github.com/cloudnativelabs/kube-router/v2/cmd/kube-router@v2.1.0
  ln -sfn "$CACHE/kube-router-v2.1.0" "$STATE/kube-router"
}

build_module() ( # MODULE@VERSION OUTPUT; in a subshell, for its trap
  local bin
  bin=$(mktemp -d)
  trap 'rm -rf "$bin"' EXIT
  GOBIN=$bin CGO_ENABLED=0 go install -trimpath -ldflags "-s -w" "$1"
  mv "$bin"/* "$2"
)

cached() { # NAME READY_NAME BUILD...: $CACHE/NAME, from a ready binary, else by `BUILD... OUTPUT`
  local name=$1 ready=$READY/$2.xz output
  shift 2
  [ ! -x "$CACHE/$name" ] || return 0
  mkdir -p "$CACHE"
  output=$CACHE/$name.$BASHPID
  if [ -f "$ready" ]; then
    xz -dc "$ready" >"$output"
  else
    command -v go >/dev/null || fail "$name must be built, and that needs Go (1.24 or later)"
    echo "cluster: building $name, a few minutes the first time" >&2
    "$@" "$output"
  fi
  chmod 755 "$output"
  mv "$output" "$CACHE/$name"
}
