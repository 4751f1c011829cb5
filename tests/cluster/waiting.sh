# Waiting for a condition with a limit.

wait_for() { # SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "cluster: gave up waiting for: $*" >&2; return 1; }
    sleep 0.1
  done
}
