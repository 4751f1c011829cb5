# The parts of the one-node cluster as processes: start, stop, see.
# $STATE/run/NAME.pid holds the process number and its start time, so that a number used again is not taken for ours.

COMPONENTS=(etcd apiserver forward containerd controller-manager scheduler kubelet proxy kube-router)
SOCKET=$STATE/containerd.sock

component_command() { # NAME: its command line in COMMAND
  local pki=$STATE/pki hyperkube=$STATE/hyperkube
  case $1 in
    etcd) COMMAND=("$hyperkube" etcd --data-dir "$STATE/etcd" --unsafe-no-fsync --log-level warn
      --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
      --listen-peer-urls http://127.0.0.1:2380) ;;
    apiserver) COMMAND=("$hyperkube" kube-apiserver --etcd-servers=http://127.0.0.1:2379
      --bind-address=127.0.0.1 --secure-port=6443 --advertise-address="$BRIDGE_ADDRESS"
      --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key"
      --client-ca-file="$pki/ca.crt" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction
      --allow-privileged=true --service-cluster-ip-range="$SERVICE_RANGE"
      --service-account-issuer=https://kubernetes.default.svc
      --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key"
      --audit-policy-file="$STATE/audit.yaml" --audit-log-path="$STATE/log/audit.log"
      --audit-log-maxsize=50 --audit-log-maxbackup=1
      # To the kubelet, by the node's name: it resolves to loopback.
      --kubelet-preferred-address-types=Hostname --kubelet-certificate-authority="$pki/ca.crt"
      --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key"
      # To aggregated APIs (metrics), by pod address: service addresses do not work from this machine itself.
      --enable-aggregator-routing=true
      --proxy-client-cert-file="$pki/admin.crt" --proxy-client-key-file="$pki/admin.key"
      --requestheader-client-ca-file="$pki/ca.crt" --requestheader-allowed-names=admin
      --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group
      --requestheader-extra-headers-prefix=X-Remote-Extra-) ;;
    # Pods reach the API server, which listens on loopback only, by the bridge's address.
    forward) COMMAND=(socat "TCP-LISTEN:6443,bind=$BRIDGE_ADDRESS,fork,reuseaddr" TCP:127.0.0.1:6443) ;;
    containerd) COMMAND=(containerd --config "$STATE/containerd.toml") ;;
    controller-manager) COMMAND=("$hyperkube" kube-controller-manager --kubeconfig="$STATE/controller-manager.kubeconfig"
      --bind-address=127.0.0.1 --leader-elect=false --cluster-cidr="$POD_RANGE" --root-ca-file="$pki/ca.crt"
      --use-service-account-credentials --service-account-private-key-file="$pki/sa.key"
      --flex-volume-plugin-dir="$STATE/volume-plugins") ;;
    scheduler) COMMAND=("$hyperkube" kube-scheduler --kubeconfig="$STATE/scheduler.kubeconfig"
      --bind-address=127.0.0.1 --leader-elect=false) ;;
    kubelet) COMMAND=("$hyperkube" kubelet --kubeconfig="$STATE/kubelet.kubeconfig" --config="$STATE/kubelet.yaml"
      --hostname-override=localhost --root-dir="$STATE/kubelet" --cert-dir="$pki") ;;
    # iptables mode: the one in which node ports answer on 127.0.0.1. Zeros leave conntrack's limits as they are.
    proxy) COMMAND=("$hyperkube" kube-proxy --kubeconfig="$STATE/proxy.kubeconfig" --hostname-override=localhost
      --proxy-mode=iptables --cluster-cidr="$POD_RANGE" --conntrack-max-per-core=0
      --conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=0s) ;;
    # Only what enforces network policies.
    kube-router) COMMAND=("$STATE/kube-router" --kubeconfig="$STATE/admin.kubeconfig"
      --hostname-override=localhost --run-router=false --run-service-proxy=false --run-firewall=true
      --service-cluster-ip-range="$SERVICE_RANGE" --health-port=0) ;;
    *) fail "no component is called '$1'; there are: ${COMPONENTS[*]}" ;;
  esac
}

component_answers() { # NAME: does it serve?
  case $1 in
    apiserver) hyperkube kubectl --kubeconfig "$STATE/admin.kubeconfig" get --raw /readyz ;;
    containerd) ctr --address "$SOCKET" version ;;
    # Not through the API server: it refuses to be a proxy to loopback.
    kubelet) port_taken 10250 ;;
    kube-router) component_runs "$1" && iptables --wait -S KUBE-ROUTER-FORWARD ;;
    *) component_runs "$1" ;;
  esac
}

process_start() { # PID: its start time in clock ticks since boot; nothing for a zombie or no process
  local fields
  { read -ra fields < <(sed 's/^.*) //' "/proc/$1/stat"); } 2>/dev/null || return 1
  [ "${fields[0]}" != Z ] && echo "${fields[19]}"
}

component_pid() { # NAME: its process number, if it runs
  local pid started
  { read -r pid started <"$STATE/run/$1.pid"; } 2>/dev/null && [ "$(process_start "$pid")" = "$started" ] && echo "$pid"
}

component_runs() { component_pid "$1" >/dev/null; }

component_gone() { ! component_runs "$1"; }

component_launch() { # NAME: start it unless it runs; does not wait
  local COMMAND
  component_runs "$1" && return
  component_command "$1"
  detach "$1" "${COMMAND[@]}"
}

detach() { # NAME COMMAND...: in a session of its own, without the lock
  local name=$1 pid
  shift
  mkdir -p "$STATE/run" "$STATE/log"
  setsid "$@" >>"$STATE/log/$name.log" 2>&1 </dev/null 9>&- &
  pid=$!
  echo "$pid $(process_start "$pid")" >"$STATE/run/$name.pid"
  disown "$pid"
}

component_works() { # NAME: it answers; one that ended meanwhile is started again
  component_launch "$1"
  component_answers "$1"
}

component_start() { # NAME: start it and wait until it answers; what was killed a moment ago may still hold its port
  wait_for 60 component_works "$1" || { tail -n 5 "$STATE/log/$1.log" >&2; fail "$1 does not answer; see $STATE/log/$1.log"; }
}

component_stop() { # NAME [SIGNAL]: it and its children, by KILL unless told otherwise; returns when it is gone
  local pid
  pid=$(component_pid "$1") || return 0
  kill "-${2:-KILL}" -- "-$pid" 2>/dev/null || true
  wait_for 15 component_gone "$1" || kill -KILL -- "-$pid" 2>/dev/null || true
}

components_status() {
  local name
  for name in "${COMPONENTS[@]}"; do printf '%-20s %s\n' "$name" "$(component_pid "$name" || echo stopped)"; done
}
