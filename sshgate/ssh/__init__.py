"""The SSH front end, built on asyncssh.

Reading order: ``server`` (listen, drain, close), ``connection`` (one connection and its channels), ``authentication``,
``login_progress``, ``certificates``, ``channel`` (a session: a ``stream.interfaces.Client``; a forwarded connection),
``options`` (asyncssh's options), ``hostkeys``, ``sftp`` (for sandboxes without an sftp-server).
``_asyncssh`` holds the subclasses that use private names of asyncssh. Methods without a docstring override asyncssh's,
or implement ``Client`` and ``Stream``; they are described there.
"""
