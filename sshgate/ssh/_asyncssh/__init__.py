"""Subclasses and helpers that use private names of asyncssh; see README.md here."""

from sshgate.ssh._asyncssh import private

private.check()
