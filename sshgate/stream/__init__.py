"""The data path between a client and a process. No third-party packages and no I/O."""
