# One node on this machine: every control port on loopback, all state under $STATE.

POD_RANGE=10.42.0.0/24
BRIDGE=cni0
BRIDGE_ADDRESS=10.42.0.1
SERVICE_RANGE=10.43.0.0/16
API_SERVICE=10.43.0.1
# Pods have link-local IPv6 addresses, to which no policy applies. manifests/README.md asks operators for the same rules.
LINK_LOCAL=("INPUT -i $BRIDGE -j DROP" "FORWARD -i $BRIDGE -j DROP")
# Kernel settings that the kubelet, kube-proxy or we change; put back by node_down.
SYSCTLS='net.ipv4.ip_forward net.ipv4.conf.all.route_localnet vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes'

node_up() {
  [ "$(id -u)" = 0 ] || fail "the one-node cluster needs root; give a cluster by KUBECONFIG instead"
  packages
  component_runs apiserver || ! port_taken 6443 || fail "port 6443 is taken: is another Kubernetes running? Give it by KUBECONFIG"
  mkdir -p "$STATE"/{run,log,cni}
  hyperkube_program
  kube_router_program
  certificates
  node_configuration
  node_network
  component_launch etcd
  component_launch apiserver
  component_launch forward
  component_launch containerd
  component_start apiserver
  component_launch controller-manager
  component_launch scheduler
  component_start containerd
  pause_image
  component_launch kubelet
  component_launch proxy
  wait_for 120 node_ready || fail "the node did not get ready; see $STATE/log/kubelet.log"
  component_start kube-router # needs the node
  wait_for 60 kubectl get serviceaccount default || fail "no service account; see $STATE/log/controller-manager.log"
  addons_start
}

node_ready() { kubectl wait --for=condition=Ready node/localhost --timeout=1s; }

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

node_configuration() {
  local file
  for file in containerd.toml kubelet.yaml audit.yaml cni/bridge.conflist; do
    sed "s|@STATE@|$STATE|g; s|@POD_RANGE@|$POD_RANGE|g; s|@BRIDGE@|$BRIDGE|g" "$HERE/node/${file##*/}" >"$STATE/$file"
  done
}

node_network() {
  # shellcheck disable=SC2086
  [ -f "$STATE/sysctl.before" ] || sysctl $SYSCTLS >"$STATE/sysctl.before" 2>/dev/null || true
  sysctl -qw net.ipv4.ip_forward=1
  local rule
  for rule in "${LINK_LOCAL[@]}"; do
    ip6tables --wait -C $rule 2>/dev/null || ip6tables --wait -I $rule || true # a kernel without IPv6 needs none
  done
  ip link show "$BRIDGE" >/dev/null 2>&1 && return
  ip link add "$BRIDGE" type bridge
  ip addr add "$BRIDGE_ADDRESS/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
}

node_down() {
  [ -d "$STATE" ] || return 0
  local name
  component_stop kwok
  for name in addons kube-router proxy kubelet scheduler controller-manager forward apiserver etcd; do component_stop "$name" TERM; done
  pods_kill
  component_stop containerd TERM
  shims_kill
  mounts_below "$STATE" | xargs -r umount --lazy
  ip link delete "$BRIDGE" 2>/dev/null || true
  rules_remove
  traces_remove
  [ ! -f "$STATE/sysctl.before" ] || sysctl -qp "$STATE/sysctl.before" || true
  rm -rf "$STATE"
}

pods_kill() { # every process in a pod's control group
  local round
  for round in 1 2 3 4 5; do
    find /sys/fs/cgroup -path '*/kubepods*' -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | xargs -r kill -KILL 2>/dev/null || return 0
    sleep 0.2
  done
}

shims_kill() { # containerd leaves its shims running, so that it can be restarted
  local commandline
  for commandline in /proc/[0-9]*/cmdline; do
    if grep -qsF -e "$SOCKET" "$commandline"; then kill -KILL "$(basename "${commandline%/cmdline}")" 2>/dev/null || true; fi
  done
}

mounts_below() { awk -v below="$1/" 'index($2, below) == 1 {print $2}' /proc/mounts | sort -r; }

rules_remove() { # the chains of kube-proxy, the kubelet, kube-router and the network plugins
  local family rules rule
  for rule in "${LINK_LOCAL[@]}"; do ip6tables --wait -D $rule 2>/dev/null || true; done
  for family in iptables ip6tables; do
    rules=$("$family-save" 2>/dev/null) || continue
    [[ $rules == *KUBE-* || $rules == *CNI-* ]] || continue
    grep -vE 'KUBE-|CNI-' <<<"$rules" | "$family-restore"
  done
  { ipset list -name 2>/dev/null | grep -E 'KUBE-|kube-router-' || true; } | xargs -r -n 1 ipset destroy
}

traces_remove() { # what the programs leave outside of $STATE, wherever they are told to keep their things
  find /var/log/containers -lname "$STATE/*" -delete 2>/dev/null || true
  rm -f /var/lib/kubelet/device-plugins/{kubelet.sock,kubelet_internal_checkpoint} /var/lib/cni/results/sshgate-*
  # Another containerd on this machine keeps the same things in the same places.
  if [ ! -S /run/containerd/containerd.sock ]; then
    mounts_below /run/containerd | xargs -r umount --lazy # runsc keeps an empty network namespace there
    rm -rf /run/containerd /var/lib/cni/results/cni-loopback-*
  fi
  rmdir /var/log/containers /var/lib/cni/results /var/lib/cni /var/lib/kubelet/device-plugins /var/lib/kubelet 2>/dev/null || true
  find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} + 2>/dev/null || true
}
