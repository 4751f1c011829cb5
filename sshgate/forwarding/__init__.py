"""Connections through a sandbox: -L, -D, -W, -J, -R, unix sockets and the agent.

``inside`` is a small relay that runs in the sandbox, ``relay`` is the gateway's half of it, and
``plain`` replaces it where the sandbox has no python3. ``session.forwards`` decides which sandbox a login's forwards go
to. Every connection is made inside the sandbox, through its own network, never by the gateway.
"""
