"""One program in a pod."""
