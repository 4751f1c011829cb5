"""Connections through a sandbox: -L, -D, -W, -J, -R, unix sockets and the agent.

``inside`` is a small relay that runs in the sandbox, ``relay`` its other half in the gateway; ``forwards`` decides for
one login which sandbox is meant. Every connection is made in the sandbox, by its own network, never by the gateway.
"""
