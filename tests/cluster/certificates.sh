# The one-node cluster's own authority, and a kubeconfig for each part that talks to the API server.

certificates() { # all of them, once
  [ -f "$STATE/pki/ca.crt" ] && [ -f "$STATE/admin.kubeconfig" ] && return
  mkdir -p "$STATE/pki"
  chmod 700 "$STATE/pki"
  (
    cd "$STATE/pki"
    openssl req -x509 -days 365 -subj /CN=sshgate-test-ca -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
      -keyout ca.key -out ca.crt 2>/dev/null
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out sa.key 2>/dev/null
    openssl pkey -in sa.key -pubout -out sa.pub
    issue apiserver /CN=kube-apiserver \
      "IP:127.0.0.1,IP:$BRIDGE_ADDRESS,IP:$API_SERVICE,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    issue kubelet /O=system:nodes/CN=system:node:localhost DNS:localhost,IP:127.0.0.1
    issue controller-manager /CN=system:kube-controller-manager DNS:controller-manager
    issue scheduler /CN=system:kube-scheduler DNS:scheduler
    issue proxy /CN=system:kube-proxy DNS:proxy
    issue admin /O=system:masters/CN=admin DNS:admin
  )
  local user
  # The administrator's comes last: `up` takes it as the sign that the rest is there.
  for user in kubelet controller-manager scheduler proxy admin; do kubeconfig "$user"; done
}

issue() { # NAME SUBJECT ALTERNATIVE_NAMES
  openssl req -new -nodes -subj "$2" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout "$1.key" 2>/dev/null |
    openssl x509 -req -days 365 -CA ca.crt -CAkey ca.key -CAcreateserial -out "$1.crt" \
      -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$3") 2>/dev/null
}

kubeconfig() { # USER
  local file=$STATE/$1.kubeconfig pki=$STATE/pki
  (
    umask 077
    cat >"$file" <<YAML
apiVersion: v1
kind: Config
current-context: sshgate-test
contexts: [{name: sshgate-test, context: {cluster: node, user: $1}}]
clusters: [{name: node, cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: $(base64 -w0 "$pki/ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$pki/$1.crt"), client-key-data: $(base64 -w0 "$pki/$1.key")}}]
YAML
  )
}
