"""The SSH front door. The only package that knows asyncssh.

Reading order: ``server`` (listen, drain, close), ``connection`` (who is it, and which channels), ``certificates``
(what a certificate allows), ``channel`` (a ``streams.Client``), ``options`` (our configuration in asyncssh's
words), ``hostkeys``, ``contracts`` (what this package needs of the others). Private attributes of asyncssh are
touched in ``transport`` (a connection), ``wire`` (a channel) and ``gcm`` (packets) only.
"""
