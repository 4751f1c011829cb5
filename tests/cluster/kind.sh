# A cluster by kind (Kubernetes in containers), where a container engine answers.

KIND_NAME=sshgate
KIND_NODE_IMAGE=kindest/node:v1.34.0

kind_can_be_had() {
  local engine
  command -v kind >/dev/null || return 1
  for engine in docker podman; do
    timeout 10 "$engine" info >/dev/null 2>&1 || continue
    timeout 10 "$engine" image inspect "$KIND_NODE_IMAGE" >/dev/null 2>&1 ||
      timeout 300 "$engine" pull -q "$KIND_NODE_IMAGE" >/dev/null 2>&1 || continue
    export KIND_EXPERIMENTAL_PROVIDER=$engine
    return 0
  done
  return 1
}

kind_up() {
  local config=$STATE/kind.kubeconfig
  kind_can_be_had || fail "kind needs a container engine that answers and the image $KIND_NODE_IMAGE"
  [ -f "$config" ] && timeout 10 kubectl get --raw /readyz --request-timeout=5s >/dev/null 2>&1 && return
  mkdir -p "$STATE"
  timeout 60 kind delete cluster --name "$KIND_NAME" >/dev/null 2>&1 || true
  timeout 300 kind create cluster --name "$KIND_NAME" --image "$KIND_NODE_IMAGE" --config "$HERE/kind.yaml" \
    --kubeconfig "$config" --wait 120s >&2 || fail "kind could not make a cluster"
}

kind_down() {
  [ -f "$STATE/kind.kubeconfig" ] || return 0
  kind_can_be_had || fail "cannot reach the container engine that runs the kind cluster '$KIND_NAME'"
  kind delete cluster --name "$KIND_NAME" --kubeconfig "$STATE/kind.kubeconfig"
  rm -rf "$STATE"
}
