"""One program in a pod: starting it, its protocol, and how it ended."""
