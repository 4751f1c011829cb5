"""Explains a pod's start and end from its status and events, in sentences for the user. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from sshgate.lifecycle.schema import NAME
from sshgate.providers.kubernetes.api.errors import quoted
from sshgate.providers.kubernetes.api.objects import Condition, ContainerStatus, Event, Pod, Terminated, Waiting
from sshgate.providers.kubernetes.exec.remotecommand import CONTAINER

# Why a container does not start. The kubelet retries for as long as the pod exists, but nothing will change by itself.
_BLOCKED = {
    "ErrImageNeverPull": "the image {image} is not on the node and may not be pulled there",
    "InvalidImageName": "{image} is not the name of an image",
    "ImagePullBackOff": "the image {image} cannot be pulled",
    "ErrImagePull": "the image {image} cannot be pulled",
    "RegistryUnavailable": "the image {image} cannot be pulled",
    "ImageInspectError": "the image {image} on the node is broken",
    "CreateContainerConfigError": "the sandbox's container cannot be configured",
    "CreateContainerError": "the sandbox's container cannot be made",
    "RunContainerError": "the sandbox's container cannot be started",
    "CrashLoopBackOff": "the sandbox's program ends again and again",
}
# A single failed pull may be temporary, so it is final only with one of these messages; a second one in a row
# (ImagePullBackOff) always is.
_FAILED_PULLS = ("ErrImagePull", "RegistryUnavailable")
_CLEAR_PULL_FAILURES = ("not found", "manifest unknown", "denied", "unauthorized", "forbidden", "no such host")
# What kubelet and container runtime put before the registry's own words: the image's name, again and again.
_IMAGE_AGAIN = re.compile(
    r"""\A(?:(?:back-off\ pulling\ image | failed\ to\ [a-z\ ]+? | couldn't\ parse\ image\ name)\ "[^"]*"(?::\ |$)
    | container\ image\ "[^"]*"\ is\ not\ present\ with\ pull\ policy\ of\ Never
    | (?:ErrImagePull|RegistryUnavailable):\ | rpc\ error:\ code\ =\ \w+\ desc\ =\ )+""",
    re.IGNORECASE | re.VERBOSE,
)

# Events that hold up a start. Their component retries, and some pass by themselves (a volume claim that the node may
# not read yet, a network that is not ready).
_TROUBLE = frozenset({"FailedCreatePodSandBox", "FailedMount", "FailedAttachVolume", "FailedScheduling", "Failed"})
# Events that show that node, volumes and network are no longer the problem.
_BEYOND = frozenset({"Scheduled", "Pulling", "Pulled", "Created", "Started"})
# An error is final when it is reported again more than this many seconds after the first report. The kubelet retries
# a volume after 0.5, 1, 2 and 4 s; a claim that it could not read, or a network, after 10 to 15 s.
TROUBLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PodPhase:
    """How far a pod is. ``reason`` is a sentence: what is missing if ``unschedulable``, else why it ended."""

    phase: Literal["scheduling", "unschedulable", "starting", "running", "hopeless", "ended"]
    reason: str = ""

    @property
    def over(self) -> bool:
        """Whether the pod will never run (again)."""
        return self.phase in ("hopeless", "ended")


def classify(pod: Pod, image: str, lifetime: float) -> PodPhase:
    """The phase of a pod by its status. ``image`` and ``lifetime`` (seconds) are the profile's, for the sentences."""
    if pod.status.phase in ("Failed", "Succeeded"):
        return _finished(pod, lifetime)
    container = _container(pod)
    if container is not None and container.state.terminated is not None:
        return _terminated(container.state.terminated)
    if pod.metadata.deletion_timestamp is not None:
        return _removed(pod)
    failure = blocked(pod)
    if failure is not None and not _may_pass(failure):
        return PodPhase("hopeless", _explain(failure, image))
    if container is not None and container.state.running is not None:
        return PodPhase("running")
    return _scheduling(pod)


def blocked(pod: Pod) -> Waiting | None:
    """Why a container of the pod cannot be started, if so; the kubelet keeps trying. Of several, one that is final."""
    states = (status.state for status in (*pod.status.init_container_statuses, *pod.status.container_statuses))
    found = (state.waiting for state in states if state.waiting and state.waiting.reason in _BLOCKED)
    return min(found, key=_may_pass, default=None)


def unscheduled(pod: Pod) -> Condition | None:
    """The condition that shows that no node has room for the pod, if so; the scheduler keeps trying."""
    return next((one for one in pod.status.conditions if one.type == "PodScheduled" and one.status == "False"), None)


def deleted(pod: Pod, lifetime: float) -> PodPhase:
    """Why a deleted pod ended, from its last known state. ``lifetime`` (seconds) is the profile's."""
    if pod.status.phase in ("Failed", "Succeeded"):
        return _finished(pod, lifetime)
    return _removed(pod)


def progress(event: Event, image: str) -> str | None:
    """The progress text for an event, if it has one."""
    if event.reason == "Pulling":
        return f"pulling image {image}"
    if event.reason == "TriggeredScaleUp":
        return "waiting for a new node"
    if event.reason in ("Pulled", "Created"):
        return "starting"
    return None


class StartupErrors:
    """The errors that a pod's events report while it starts."""

    def __init__(self) -> None:
        self.messages: str | None = None
        """The last error; ``None`` if there was none, or the start has got past it."""
        self.final = False
        """Whether the error will not pass by itself."""
        self._since: dict[str, float] = {}

    def observe(self, event: Event, now: float) -> None:
        """Take note of an event; ``now`` is the time of a monotonic clock, in seconds."""
        if event.reason in _BEYOND:
            self.messages, self.final = None, False
            self._since.clear()
        elif event.type == "Warning" and event.reason in _TROUBLE:
            # "Error: ErrImagePull" follows the event that has the reason.
            if self.messages is None or not event.message.startswith("Error: "):
                self.messages = quoted(_IMAGE_AGAIN.sub("", event.message))
            lasted = now - self._since.setdefault(event.reason, now)
            # FailedScheduling is never final here: the profile limits how long a pod may wait for a node.
            self.final = self.final or (event.reason != "FailedScheduling" and lasted > TROUBLE_SECONDS)


def _removed(pod: Pod) -> PodPhase:
    disruption = next((one for one in pod.status.conditions if one.type == "DisruptionTarget"), None)
    if disruption is not None:
        # A drained node, a taint, or pods of higher priority that the scheduler found no other room for.
        return PodPhase("ended", f"the cluster ended the sandbox: {quoted(disruption.message or disruption.reason)}")
    name = pod.metadata.labels.get(NAME)
    if name is not None:
        return PodPhase("ended", f"the sandbox {name!r} was ended.")
    return PodPhase("ended", "the sandbox was deleted by someone else than its gateway.")


def waiting(reason: str) -> str:
    """The progress text of a pod without a node; ``reason`` is its phase's."""
    match = re.search(r"(\d+)/(\d+) nodes are available", reason)
    if match:
        return f"waiting for a node: {match[1]} of {match[2]} nodes match"
    return reason or "scheduling"


def _finished(pod: Pod, lifetime: float) -> PodPhase:
    reason, message = pod.status.reason, pod.status.message
    if reason == "DeadlineExceeded":
        return PodPhase("ended", f"the sandbox has reached its longest lifetime ({_duration(lifetime)}).")
    if reason == "Evicted":
        return PodPhase("ended", f"the sandbox was evicted from its node: {quoted(message or 'no reason given')}")
    if reason in ("NodeShutdown", "Terminated", "NodeLost", "Preempting", "Shutdown"):
        return PodPhase("ended", "the node of the sandbox was shut down.")
    container = _container(pod)
    if container is not None and container.state.terminated is not None:
        return _terminated(container.state.terminated)
    detail = f": {quoted(message)}" if message else f" ({reason})." if reason else "."
    return PodPhase("ended", f"the sandbox has ended{detail}")


def _terminated(state: Terminated) -> PodPhase:
    if state.reason == "OOMKilled":
        return PodPhase("ended", "the sandbox used more memory than it may have and was ended.")
    if state.reason in ("StartError", "ContainerCannotRun") or state.exit_code == 128:
        detail = f": {quoted(state.message)}" if state.message else "."
        return PodPhase("hopeless", f"the sandbox's container cannot be started{detail}")
    return PodPhase("ended", f"the sandbox's first program has ended with status {state.exit_code}.")


def _may_pass(waiting: Waiting) -> bool:
    message = waiting.message.lower()
    return waiting.reason in _FAILED_PULLS and not any(clue in message for clue in _CLEAR_PULL_FAILURES)


def _explain(waiting: Waiting, image: str) -> str:
    what = _BLOCKED[waiting.reason].format(image=repr(image))
    why = _IMAGE_AGAIN.sub("", waiting.message)
    return f"{what} ({waiting.reason})" + (f": {quoted(why)}" if why else "; ask the operator.")


def _scheduling(pod: Pod) -> PodPhase:
    condition = unscheduled(pod)
    if condition is not None:
        # The rest of the message is about preemption, which does not help the user.
        message = re.split(r",? (no new claims to deallocate|preemption:)", condition.message)[0]
        return PodPhase("unschedulable", f"no node fits the sandbox: {quoted(message or 'unknown why')}")
    return PodPhase("starting" if pod.spec.node_name else "scheduling")


def _container(pod: Pod) -> ContainerStatus | None:
    return next((status for status in pod.status.container_statuses if status.name == CONTAINER), None)


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole >= 3600 and whole % 3600 == 0:
        return f"{whole // 3600} h"
    return f"{whole // 60} min" if whole >= 60 and whole % 60 == 0 else f"{whole} s"
