"""The broker: what a sandbox may reach outside without holding a key, through one port on its own loopback.

``server`` answers a connection from a sandbox: requests to models, with the key added here, and whatever an egress
handler answers. It knows who asks (``caller``), and nothing of ssh, sandboxes or Kubernetes.
"""
