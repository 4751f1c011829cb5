"""Our configuration in asyncssh's words: the one place where its options are chosen.

Nothing is left to the library's defaults that a client could notice, since they change between versions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket

from sshgate import __version__
from sshgate.config.model import Ssh

# Clients send eow@openssh.com ("I read no more") only to servers whose version begins with "OpenSSH".
# Without it `ssh gateway 'cat /dev/zero' | head` would go on for ever. A name where OpenSSH has its number
# (as OpenSSH_for_Windows does) keeps scanners from reading a release into it that this is not. Each number has two
# digits: npm's ssh2 has OpenSSH's extensions only for a version with two digits in a row, or of OpenSSH from 5 on.
VERSION = "OpenSSH_sshgate_" + ".".join(number.zfill(2) for number in __version__.split("."))

# curve25519-sha256 first: dropbear's client guesses it, and a right guess saves a round trip. A client that
# prefers the post-quantum one still gets it, because the client's order decides.
KEX = ("curve25519-sha256", "mlkem768x25519-sha256", "curve25519-sha256@libssh.org")
# chacha20-poly1305 costs twice the CPU of AES-GCM and is OpenSSH's first choice where it is offered.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256")
# What users may sign with; NIST curves because that is what hardware tokens have.
SIGNATURES = (
    "ssh-ed25519", "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512", "rsa-sha2-256",
)  # fmt: skip

# Input that a channel may have under way: what one unread channel can cost, and window / round trip is its speed.
WINDOW = 1 << 20
# Twice OpenSSH's packet: a third less CPU per byte of upload.
LARGEST_PACKET = 64 * 1024


def acceptable(signature: bytes) -> bool:
    """Whether a signature is one of ``SIGNATURES``, whatever it is worth."""
    try:
        return SSHPacket(signature).get_string().decode("ascii", "replace") in SIGNATURES
    except PacketDecodeError:
        return False


def connection_options(
    ssh: Ssh, host_keys: Sequence[asyncssh.SSHKeyPair], owner: Callable[[], asyncssh.SSHServer]
) -> asyncssh.SSHServerConnectionOptions:
    """The options of every connection; ``owner`` makes the object that decides for one."""
    return asyncssh.SSHServerConnectionOptions(
        config=None,
        server_factory=owner,
        server_version=VERSION,
        server_host_keys=list(host_keys),
        send_server_host_keys=True,
        kex_algs=KEX,
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
        # The default asks the name service for this host's name.
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
