"""The settings, grouped by concern, each with its unit and its default. Values only; ``configfile`` reads them.

Durations are seconds (``30s``, ``8h`` in the file), sizes are bytes (``512Ki``, ``4Gi``) unless Kubernetes
itself reads them. ``None`` means what the field's text says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NewType


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; ``host`` is an IPv4 or IPv6 address or a name, port 0 picks a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Ssh:
    """The SSH front door."""

    listen: Address = Address("0.0.0.0", 2222)
    host_keys: Path = Path("keys/host")
    """A directory; an ed25519 and an RSA key are made there when it holds none."""
    login_grace: float = 120.0
    """Seconds from the TCP connection to the end of authentication, as OpenSSH's LoginGraceTime: a passphrase or a
    touch takes its time."""
    keepalive: float = 30.0
    """Seconds between questions to a silent client."""
    keepalive_count: int = 3
    """Unanswered questions after which the client is gone."""
    banner: str | None = None
    """Shown by the client before authentication."""
    greeting: str | None = None
    """Shown before the first prompt of an interactive shell, never elsewhere."""
    rekey_bytes: int = 1 << 30
    rekey_seconds: float = 3600.0
    channels_per_connection: int = 128
    """Sessions open at a time on one connection (OpenSSH's MaxSessions is 10)."""
    proxy_protocol: tuple[str, ...] = ()
    """Addresses or networks of balancers that say with a PROXY header, version 1 or 2, where a client is. From these
    it must come; from others it is an error."""
    forwards_per_connection: int = 200
    """Forwarded connections open at a time on one connection, listeners counted as well."""
    drain: float = 10.0
    """Seconds that running sessions have to end after TERM before they are cut."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in."""

    authorized_keys: Path = Path("keys/users")
    """A directory of OpenSSH authorized_keys files; a file's name is a user's name."""
    user_ca: Path | None = None
    """Public keys of certificate authorities, one a line; ``None``: no certificates but by cert-authority lines."""
    accept_env: tuple[str, ...] = (
        "LANG", "LC_*", "COLORTERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "NO_COLOR", "TZ",
        "GIT_PROTOCOL", "ANTHROPIC_*", "CLAUDE_*", "SSHGATE_PROFILE", "SSHGATE_NAME", "SSHGATE_RECEIPT",
    )  # fmt: skip
    """Patterns of the variables a client may set. TERM comes with the terminal."""
    accept_env_forced: tuple[str, ...] = ("LANG", "LC_*", "TZ", "TERM", "COLORTERM", "NO_COLOR", "GIT_PROTOCOL")
    """The same where the key or certificate forces a command, in place of those above."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a certificate chain and its key, in PEM; read again when they change."""

    cert: Path = Path("keys/tls.crt")
    key: Path = Path("keys/tls.key")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A reverse proxy that is believed what it says of its clients."""

    addresses: tuple[str, ...] = ()
    """Addresses or networks that it connects from: its X-Forwarded-For, -Prefix and -Proto are believed."""
    secret_file: Path | None = None
    """A secret that it sends with each request, and with it a user's name; ``None``: it logs nobody in."""
    secret_header: str = "X-Sshgate-Secret"
    user_header: str = "X-Forwarded-User"


@dataclass(frozen=True, slots=True)
class Web:
    """The browser's front door."""

    listen: Address = Address("0.0.0.0", 31000)
    public_url: str | None = None
    """What people open, with the base path; ``None``: whatever name leads to the address that it listens on."""
    tls: Tls | None = None
    """``None``: plain HTTP, for loopback and behind a proxy."""
    secret: Path = Path("keys/web")
    """A file that logins are signed with; made at the first start. Gateways that share it share logins."""
    users_file: Path | None = None
    """Lines ``USER:HASH`` as ``sshgate passwd USER`` writes them; ``None``: nobody logs in by a password."""
    proxy: Proxy | None = None
    proxy_protocol: tuple[str, ...] = ()
    """Balancers that speak the PROXY protocol, as ``ssh.proxy_protocol``; they need not be believed as ``proxy``."""
    login_lifetime: float = 12 * 3600.0
    """Seconds until a browser has to log in again."""
    token_lifetime: float = 30 * 86_400.0
    """Seconds until a program's token ends."""
    sessions_per_user: int = 20
    """Sessions that one user may have at a time, ended ones that were not looked at among them."""
    login_attempts: int = 10
    """Failed logins a minute from one address, and for one user."""
    upload_bytes: int = 64 << 30
    """The largest file that is taken."""


@dataclass(frozen=True, slots=True)
class SandboxPlace:
    """Where sandboxes are made."""

    provider: Literal["kubernetes", "local"] = "kubernetes"
    kubeconfig: Path | None = None
    """``None``: the pod's own service account, else $KUBECONFIG, else ~/.kube/config."""
    context: str | None = None
    """A context of the kubeconfig; ``None``: its current one."""
    namespace: str = "claudecode-terminal"
    gateway: str | None = None
    """The name on its sandboxes, for people; ``None``: the host's (in a pod: the pod's). A second one on a machine
    gets a number behind it."""
    anchor: str | None = "sshgate-anchor"
    """A ConfigMap in the namespace that owns whatever is made there, so that uninstalling deletes it; where there
    is none, nothing does. Homes are never owned."""
    api_timeout: float = 8.0
    """Seconds an API request may take before the API server counts as gone."""


@dataclass(frozen=True, slots=True)
class ProfileLimits:
    """Clocks of one profile."""

    max_lifetime: float = 8 * 3600.0
    """Seconds after which a sandbox ends, whatever it does; the kubelet enforces it too."""
    idle: float = 1800.0
    """Seconds without a byte after which a session ends; 0: never."""
    detached: float = 600.0
    """Seconds that a browser's session that runs no program is kept without a client; likewise a sandbox, named or a
    connection's, without a channel and without a program that runs."""
    start: float = 120.0
    """Seconds a cold start may take in all."""
    unschedulable: float = 8.0
    """Seconds to wait for a node that fits; raise it where a cluster autoscaler brings nodes."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Kubernetes resource quantities, by resource name, as in a pod."""

    requests: Mapping[str, str] = field(
        default_factory=lambda: {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "512Mi"}
    )
    """What is not requested counts as its limit: without a word about storage a node would hold few sandboxes."""
    limits: Mapping[str, str] = field(default_factory=lambda: {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "8Gi"})


@dataclass(frozen=True, slots=True)
class Home:
    """A directory that outlives its named sandbox and is mounted again next time."""

    size: str = "10Gi"
    """What is asked of the storage class, as a Kubernetes quantity."""
    storage_class: str | None = "local-path"
    """``local-path`` is what k3s brings along; ``None``: the cluster's default."""
    path: str = "/home/dev"
    """Where it is mounted: the home directory of the image's user."""


@dataclass(frozen=True, slots=True)
class Forward:
    """What may be forwarded, always by the sandbox's own network, never by the gateway's."""

    loopback: bool = True
    """``-L``, ``-D``, ``-W``, ``-J`` to ports on the sandbox's own localhost and to its unix sockets."""
    elsewhere: bool = False
    """The same to other hosts, as far as the sandbox itself can reach them."""
    remote: bool = True
    """``-R``: listeners in the sandbox, on its localhost only, whose connections go to the user's machine."""
    agent: bool = False
    """``-A``: whatever runs in the sandbox may sign with the user's keys while the user is connected."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A named kind of sandbox."""

    name: str = "default"
    """The key in the file's ``profiles``; not a field of its own there."""
    image: str = "claudecode-sandbox:latest"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "Never"
    scope: Literal["channel", "connection"] = "connection"
    """``connection``: one sandbox for all channels of a connection, as with sshd; ``channel``: a fresh one for each."""
    shell: str = "/bin/bash"
    """The login shell; where the image has none, the account's, then /bin/sh."""
    allow: tuple[str, ...] = ("*",)
    """Patterns of the users who may have it."""
    resources: Resources = Resources()
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables every program gets, before the client's."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    runtime_class: str | None = None
    warm: int = 0
    """Sandboxes kept ready (Kubernetes only; so are the three settings below)."""
    refill_per_minute: int = 300
    """Sandboxes that may be made ready per minute, so that a drained pool does not compete with logins."""
    settle: float = 3.0
    """Seconds a sandbox must have been ready before a login gets it: network policies reach a new pod late."""
    parked: tuple[Literal["terminal", "pipe"], ...] = ("terminal", "pipe")
    """The launchers that wait in each warm sandbox; an empty list: programs start by an exec of their own."""
    home: Home | None = None
    """Named sandboxes of this profile get a persistent home; on a cluster only."""
    forward: Forward = Forward()
    limits: ProfileLimits = ProfileLimits()
    pod_overrides: Mapping[str, Any] = field(default_factory=dict)
    """A raw pod spec fragment, merged last, lists by ``name``; the sandbox's container is called ``shell``."""
    binds: tuple[Path, ...] = ()
    """Local provider only: directories of this machine seen at the same path, writable."""


@dataclass(frozen=True, slots=True)
class Group:
    """Users who share a limit."""

    users: tuple[str, ...] = ()
    """Patterns of their names; a user may be in several groups."""
    sandboxes: int = 20
    """Sandboxes that all of them together may have."""
    homes: int | None = None
    """Homes that all of them together may keep; ``None``: what ``homes_per_user`` gives each of them."""


@dataclass(frozen=True, slots=True)
class Penalties:
    """What an address owes for each connection that ends without a login, as OpenSSH's PerSourcePenalties."""

    authfail: float = 5.0
    """Seconds for keys that were refused."""
    noauth: float = 1.0
    """Seconds for leaving after the key exchange without a try. Who says less than that owes nothing: silent
    connections give way to others instead."""
    grace_exceeded: float = 10.0
    """Seconds for exchanging keys and then letting ``ssh.login_grace`` pass."""
    crash: float = 90.0
    """Seconds for an error inside the gateway."""
    min: float = 15.0
    """Seconds of debt from which on the address is refused, until nothing is left."""
    max: float = 600.0
    """The most that an address owes."""
    sources: int = 65_536
    """Addresses that are remembered; the ones whose debt is over soonest give way."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many, over all profiles."""

    sandboxes_per_user: int = 40
    sandboxes: int = 100
    """In all, the warm ones among them. Warm ones give way to logins."""
    homes_per_user: int = 5
    """Homes of named sandboxes that one user may keep, whether their sandboxes run or not."""
    groups: Mapping[str, Group] = field(default_factory=dict)
    starts_per_minute: int | None = 300
    """Sandboxes that one user may start per minute, as many at once; ``None``: any number."""
    connections_per_source: int = 100
    """Open connections of one user from one address. Who has not logged in is counted apart, as follows."""
    unauthenticated: int = 100
    """Connections that have not logged in yet, by ssh and by the web apart. When it is full, the one that has come
    least far makes room, of those the oldest."""
    unauthenticated_per_source: int = 10
    """The same of one address, as far as they are older than ten seconds: a burst of logins may be larger."""
    unauthenticated_per_network: int = 40
    """The same of one IPv6 /48, however old."""
    penalties: Penalties | None = Penalties()
    """What addresses pay for ssh connections that end without a login; ``None``: nothing."""
    penalty_exempt: tuple[str, ...] = ("127.0.0.0/8", "::1")
    """Networks that pay nothing: those that many people share, a balancer without PROXY protocol for one."""
    auth_attempts: int = 6
    """Failed attempts on one connection (OpenSSH's MaxAuthTries)."""


@dataclass(frozen=True, slots=True)
class Log:
    """What the gateway tells its operator, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "human", "json"] = "auto"
    """``auto``: human on a terminal, JSON otherwise."""


Share = NewType("Share", float)
"""From 0, none, to 1, all."""


@dataclass(frozen=True, slots=True)
class Traces:
    """OpenTelemetry's traces, by OTLP over HTTP. What is not here follows the SDK's own OTEL_* variables."""

    endpoint: str = ""
    """The collector's address, ``http[s]://host[:port][/path]``; ``/v1/traces`` is added. Must be given."""
    headers_file: Path | None = None
    """Lines ``name: value`` to send along, such as a token; read at the start. ``None``: none."""
    sample: Share = Share(1.0)
    """The share of connections that are traced, with all that goes on in them."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What machines are told: health, metrics, audit events, traces."""

    listen: Address | None = None
    """Where /healthz, /readyz and /metrics are served, to whoever can reach it; ``None``: nowhere."""
    audit: Path | None = None
    """A file that audit events are appended to, as JSON lines; ``None``: they stand in the log only."""
    traces: Traces | None = None
    """``None``: no traces."""


@dataclass(frozen=True, slots=True)
class Config:
    """All of it."""

    ssh: Ssh = Ssh()
    access: Access = Access()
    web: Web | None = None
    """``None``: no web server."""
    sandbox: SandboxPlace = SandboxPlace()
    profiles: Mapping[str, Profile] = field(default_factory=lambda: {"default": Profile()})
    limits: Limits = Limits()
    log: Log = Log()
    telemetry: Telemetry = Telemetry()
