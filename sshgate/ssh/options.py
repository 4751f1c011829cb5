"""asyncssh's options, all set here.

Every option that a client could notice is set explicitly, as the library's defaults change between versions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import asyncssh

from sshgate import __version__
from sshgate.config.model import Ssh
from sshgate.ssh._asyncssh.userauth import SIGNATURES

# OpenSSH's client sends eow@openssh.com (end of write: it reads no more) only to servers whose version begins with
# "OpenSSH". Without it `ssh gateway 'cat /dev/zero' | head` would never end. A name in place of OpenSSH's version
# number, as in OpenSSH_for_Windows, keeps scanners from taking this for some release of OpenSSH. Each number has two
# digits: npm's ssh2 uses OpenSSH's extensions only for versions with two digits in a row, or for OpenSSH 5 and later.
VERSION = "OpenSSH_sshgate_" + ".".join(number.zfill(2) for number in __version__.split("."))

# curve25519-sha256 comes first because dropbear's client guesses it, and a right guess saves a round trip. Clients
# that prefer the post-quantum method still get it, because the client's order decides.
KEX = ("curve25519-sha256", "mlkem768x25519-sha256", "curve25519-sha256@libssh.org")
# For `ssh.older_key_exchanges`.
OLDER_KEX = ("ecdh-sha2-nistp256", "ecdh-sha2-nistp384")
# Without chacha20-poly1305, which OpenSSH would choose first: it takes twice the CPU of AES-GCM.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256")
# Receive window of a session channel. It bounds the memory of an unread channel, and its upload speed to
# window / round trip.
WINDOW = 1 << 20
# Twice the size of OpenSSH's packets, which saves a third of the CPU per uploaded byte.
LARGEST_PACKET = 64 * 1024


def connection_options(
    ssh: Ssh, host_keys: Sequence[asyncssh.SSHKeyPair], owner: Callable[[], asyncssh.SSHServer]
) -> asyncssh.SSHServerConnectionOptions:
    """Return the options for all connections. ``owner`` creates the server object of each."""
    return asyncssh.SSHServerConnectionOptions(
        config=None,
        server_factory=owner,
        server_version=VERSION,
        server_host_keys=list(host_keys),
        send_server_host_keys=True,
        kex_algs=KEX + OLDER_KEX if ssh.older_key_exchanges else KEX,
        encryption_algs=CIPHERS,
        mac_algs=MACS,
        compression_algs=None,
        signature_algs=SIGNATURES,
        public_key_auth=True,
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        authorized_client_keys=None,
        x509_trusted_certs=None,
        # The default would query the name service for this host's name.
        gss_host=None,
        rdns_lookup=False,
        agent_forwarding=False,
        x11_forwarding=False,
        allow_pty=True,
        line_editor=False,
        encoding=None,
        window=WINDOW,
        max_pktsize=LARGEST_PACKET,
        login_timeout=ssh.login_grace,
        keepalive_interval=ssh.keepalive,
        keepalive_count_max=ssh.keepalive_count,
        tcp_keepalive=True,
        rekey_bytes=ssh.rekey_bytes,
        rekey_seconds=ssh.rekey_seconds,
    )
