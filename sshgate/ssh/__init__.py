"""The SSH front door. The only package that knows asyncssh.

Reading order: ``server`` (listen, drain, close), ``connection`` (who is it, and which channels), ``channel``
(a ``streams.Client``), ``transport`` (every private attribute of asyncssh that is touched), ``options`` (our
configuration in asyncssh's words), ``hostkeys``, ``contracts`` (what this package needs of the others).
"""
