"""Subclasses and helpers that use private names of asyncssh; see README.md here."""

from sshgate.config.private_names import check
from sshgate.ssh._asyncssh.private import USED, WORKS

check("asyncssh", WORKS, USED)
