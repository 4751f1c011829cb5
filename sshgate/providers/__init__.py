"""What makes sandboxes: a Kubernetes cluster, or this machine."""
