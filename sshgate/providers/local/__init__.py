"""Sandboxes on this machine, by bubblewrap: for trying and testing, on loopback only."""
