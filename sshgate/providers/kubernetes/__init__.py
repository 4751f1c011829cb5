"""Sandboxes as pods: REST and watch (``client``, ``reflector``), the exec wire (``socket``, ``exec``), ``provider``."""
