"""Held sessions: programs on terminals that outlive their clients, connections and gateways."""
