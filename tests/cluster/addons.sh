# What k3s brings along: CoreDNS, Metrics Server, Local Path Provisioner. `up` starts this in the background;
# `up --addons` waits for it.

declare -A ADDONS=([coredns]=github.com/coredns/coredns@v1.14.7
  [metrics-server]=sigs.k8s.io/metrics-server/cmd/metrics-server@v0.9.0
  [local-path-provisioner]=github.com/rancher/local-path-provisioner@v0.0.30)

addons_start() {
  [ -f "$STATE/addons.done" ] || component_runs addons || detach addons "$HERE/cluster" apply-addons
}

addons_wait() {
  wait_for 1200 addons_ended
  [ -f "$STATE/addons.done" ] || { tail -n 5 "$STATE/log/addons.log" >&2; fail "the addons did not come up; see $STATE/log/addons.log"; }
}

addons_apply() {
  local name
  for name in "${!ADDONS[@]}"; do image_present "$name:local" || addon_image "$name"; done
  wait_for 60 image_present sshgate-busybox:latest
  mkdir -p "$STATE/storage"
  sed "s|@STATE@|$STATE|g" "$HERE/addons.yaml" | kubectl apply -f -
  wait_for 240 kubectl -n kube-system wait --for=condition=Available deployment --all --timeout=5s
  wait_for 240 kubectl top nodes
  touch "$STATE/addons.done"
}

addon_image() ( # NAME; in a subshell, for its trap
  local rootfs
  cached "$1-${ADDONS[$1]##*@}" "$1" build_module "${ADDONS[$1]}"
  rootfs=$(mktemp -d)
  trap 'rm -rf "$rootfs"' EXIT
  cp "$CACHE/$1-${ADDONS[$1]##*@}" "$rootfs/$1"
  load "$1:local" "$rootfs" --entrypoint "/$1"
)

addons_ended() { [ -f "$STATE/addons.done" ] || component_gone addons; }
