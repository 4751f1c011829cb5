# gVisor on the one node, as the runtime class `gvisor`: built from its Go module, once.

gvisor_up() {
  local place=$STATE/gvisor program key
  [ "$(present)" = node ] || fail "gVisor is put on the one-node cluster only"
  key=$(cat "$HERE"/gvisor/{go.mod,go.sum} | sha256sum | cut -c1-12)
  for program in runsc shim; do cached "gvisor-$program-$key" "gvisor-$program" build_gvisor "$program"; done
  mkdir -p "$place"
  ln -sfn "$CACHE/gvisor-runsc-$key" "$place/runsc"
  ln -sfn "$CACHE/gvisor-shim-$key" "$place/shim-json"
  cp "$HERE/gvisor/shim" "$place/shim"
  printf 'binary_name = "%s"\n[runsc_config]\n  platform = "systrap"\n' "$place/runsc" >"$place/runsc.toml"
  hyperkube kubectl --kubeconfig "$STATE/admin.kubeconfig" apply -f "$HERE/gvisor/runtimeclass.yaml" >&2
}

build_gvisor() ( # runsc|shim OUTPUT; in a subshell, for its trap
  local source
  source=$(mktemp -d)
  trap 'rm -rf "$source"' EXIT
  cp "$HERE"/gvisor/{go.mod,go.sum,programs.go} "$source"
  # A machine without CAP_SYS_RESOURCE may not lower oom_score_adj, and the shim takes that for a failure.
  cd "$source"
  go mod vendor
  sed -i 's/oomScoreMax = -999/oomScoreMax = 0/' vendor/gvisor.dev/gvisor/pkg/shim/v1/manager.go
  CGO_ENABLED=0 go build -mod=vendor -trimpath -ldflags "-s -w" -o "$2" "gvisor.dev/gvisor/$1"
)
