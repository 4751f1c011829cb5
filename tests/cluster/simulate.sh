# Nodes and pods that are objects only: KWOK says of them what a kubelet would, so that thousands of pods become Ready.

SIMULATED=sshgate.dev/simulated

simulate() { # NODES PODS: so many from now on; `0 0` removes all
  [ "$(present)" = node ] || fail "only the one-node cluster is simulated upon"
  [[ "${1:-} ${2:-}" =~ ^[0-9]{1,4}\ [0-9]{1,5}$ ]] || fail "usage: cluster simulate NODES PODS"
  if [ "$1" = 0 ]; then simulation_end; return; fi
  cached kwok-v0.8.0 kwok build_module sigs.k8s.io/kwok/cmd/kwok@v0.8.0
  component_runs kwok || detach kwok "$CACHE/kwok-v0.8.0" --kubeconfig="$STATE/admin.kubeconfig" \
    --config="$HERE/simulate.yaml" --node-lease-duration-seconds=40 --v=WARN \
    --manage-nodes-with-label-selector="$SIMULATED" --server-address=127.0.0.1:10247
  simulated_nodes "$1" | kubectl apply -f - >/dev/null
  wait_for 120 kubectl wait --for=condition=Ready node --selector="$SIMULATED" --timeout=5s
  simulated_pods "$2" | kubectl apply -f - >/dev/null
  wait_for $((60 + $2 / 10)) kubectl -n simulated rollout status deployment/simulated --timeout=5s
}

simulated_nodes() { # COUNT
  local number
  for ((number = 1; number <= $1; number++)); do
    cat <<YAML
---
apiVersion: v1
kind: Node
metadata: {name: simulated-$number, labels: {$SIMULATED: "true", kubernetes.io/os: linux}}
spec: {taints: [{key: $SIMULATED, effect: NoSchedule}]} # nothing else lands there
YAML
  done
}

simulated_pods() { # COUNT
  cat <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: simulated}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: simulated, namespace: simulated}
spec:
  replicas: $1
  selector: {matchLabels: {app: simulated}}
  template:
    metadata: {labels: {app: simulated}}
    spec:
      nodeSelector: {$SIMULATED: "true"}
      tolerations: [{key: $SIMULATED, operator: Exists}]
      containers: [{name: none, image: none}]
YAML
}

simulation_end() {
  kubectl delete namespace simulated --ignore-not-found --timeout=300s >/dev/null
  kubectl delete nodes --selector="$SIMULATED" >/dev/null
  component_stop kwok
}
