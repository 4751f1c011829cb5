"""The few fields of Kubernetes objects that the gateway reads, decoded directly from JSON.

Decoding a list of 1,000 pods into these takes 10 ms; the client library's models take a second. Ten thousand of them
are kept, so what nothing asks for is dropped at once, and texts that many pods share are kept once.
"""

from __future__ import annotations

from sys import intern
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Object(msgspec.Struct, rename="camel", kw_only=True, gc=False):
    """Base class: field names are camelCase in JSON, unknown fields are skipped. None of them can be in a cycle."""


class Meta(Object):
    """ObjectMeta."""

    name: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None

    def __post_init__(self) -> None:
        self.labels = {intern(key): intern(value) for key, value in self.labels.items()}
        self.annotations = {intern(key): value for key, value in self.annotations.items()}


class Waiting(Object):
    """Why a container has not started yet."""

    reason: str = ""
    message: str = ""


class Running(Object):
    """A container that runs."""


class Terminated(Object):
    """How a container ended."""

    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""


class ContainerState(Object):
    """At most one of the fields is set."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Object):
    """The status of one container of a pod."""

    name: str = ""
    state: ContainerState = msgspec.field(default_factory=ContainerState)


class Condition(Object):
    """A pod condition, such as ``PodScheduled``."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None


# Whether it is ready, that it has no node, and that the cluster is ending it.
_CONDITIONS = {("Ready", "True"), ("PodScheduled", "False"), ("DisruptionTarget", "True")}


class PodSpec(Object):
    """The spec of a pod."""

    node_name: str = ""
    hostname: str = ""
    host_network: bool = False
    active_deadline_seconds: int | None = None

    def __post_init__(self) -> None:
        self.node_name, self.hostname = intern(self.node_name), intern(self.hostname)


class PodIP(Object):
    """One address of a pod."""

    ip: str = ""


class PodStatus(Object):
    """The status of a pod."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    start_time: str | None = None
    pod_ip: str = msgspec.field(default="", name="podIP")  # read by `lifecycle.records`, as JSON
    pod_ips: list[PodIP] = msgspec.field(default_factory=list, name="podIPs")
    conditions: list[Condition] = []
    container_statuses: list[ContainerStatus] = []
    init_container_statuses: list[ContainerStatus] = []

    def __post_init__(self) -> None:
        self.phase = intern(self.phase)
        self.conditions = [one for one in self.conditions if (one.type, one.status) in _CONDITIONS]


class Pod(Object):
    """A core/v1 pod."""

    metadata: Meta
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class Event(Object):
    """A core/v1 event: what a component of the cluster reports about an object."""

    metadata: Meta
    type: str = ""
    reason: str = ""
    message: str = ""


class ListMeta(Object):
    """The metadata of a list."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Listing(Object, Generic[T]):
    """A list of objects, as the API server returns it."""

    metadata: ListMeta
    items: list[T] | None = None


class WatchLine(Object):
    """One line of a watch; the type of ``object`` depends on ``type``."""

    type: str
    object: msgspec.Raw


class Status(Object):
    """The body of the API server's error responses."""

    kind: str
    code: int = 0
    reason: str = ""
    message: str = ""
