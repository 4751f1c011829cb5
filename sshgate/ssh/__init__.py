"""The SSH front end, built on asyncssh.

Reading order: ``server`` (listen, drain, close), ``connection`` (one connection and its channels), ``authentication``,
``certificates``, ``channel`` (a session channel: a ``stream.interfaces.Client``), ``forward`` (a forwarded
connection), ``options`` (asyncssh's options), ``hostkeys``.
``_asyncssh`` holds the subclasses that use private names of asyncssh. Methods without a docstring override asyncssh's,
or implement ``Client`` and ``Stream``; they are described there.
"""
