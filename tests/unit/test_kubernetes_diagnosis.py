"""What a pod's status says, in words for the user."""

from __future__ import annotations

from typing import Any

import pytest

from sshgate.providers.kubernetes.api.objects import (
    Condition,
    ContainerState,
    ContainerStatus,
    Event,
    Meta,
    Pod,
    PodSpec,
    PodStatus,
    Running,
    Terminated,
    Waiting,
)
from sshgate.providers.kubernetes.exec.diagnosis import StartupErrors, classify, deleted

HOUR = 3600.0


def pod(state: ContainerState | None = None, **status: Any) -> Pod:
    containers = [ContainerStatus(name="shell", state=state)] if state is not None else []
    return Pod(
        metadata=Meta(name="x", uid="u"),
        spec=PodSpec(node_name="node"),
        status=PodStatus(container_statuses=containers, **status),
    )


def test_a_pod_goes_from_scheduling_to_starting_to_running() -> None:
    assert classify(Pod(metadata=Meta(name="x")), "i", HOUR).phase == "scheduling"
    assert classify(pod(), "i", HOUR).phase == "starting"
    assert classify(pod(ContainerState(waiting=Waiting(reason="ContainerCreating"))), "i", HOUR).phase == "starting"
    assert classify(pod(ContainerState(running=Running())), "i", HOUR).phase == "running"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ({"reason": "DeadlineExceeded"}, "longest lifetime (8 h)"),
        ({"reason": "Evicted", "message": "The node was low on resource: memory."}, "low on resource: memory."),
        ({"reason": "NodeShutdown"}, "node of the sandbox was shut down"),
        ({"reason": "Odd", "message": "something"}, "has ended: something."),
        ({}, "has ended."),
    ],
)
def test_a_failed_pod_says_why(status: dict[str, Any], sentence: str) -> None:
    for judged in (
        classify(pod(phase="Failed", **status), "i", 8 * HOUR),
        deleted(pod(phase="Failed", **status), 8 * HOUR),
    ):
        assert judged.phase == "ended"
        assert sentence in judged.reason


def test_a_pod_that_gave_way_to_another_says_so() -> None:
    ended = deleted(pod(conditions=[Condition("DisruptionTarget", "True", "PreemptionByScheduler", "preempted")]), HOUR)
    assert ended.phase == "ended"
    assert "preempted" in ended.reason


def test_a_pod_out_of_memory_says_so() -> None:
    state = ContainerState(terminated=Terminated(exit_code=137, reason="OOMKilled"))
    assert "more memory than it may have" in classify(pod(state, phase="Failed"), "i", HOUR).reason


def test_a_registry_may_stumble_once_but_a_missing_image_is_final() -> None:
    def pulling(reason: str, message: str) -> str:
        waiting = Waiting(reason=reason, message=message)
        return classify(pod(ContainerState(waiting=waiting)), "image:1", HOUR).phase

    assert pulling("ErrImagePull", "i/o timeout") == "starting"
    assert pulling("ErrImagePull", "manifest unknown") == "hopeless"
    assert pulling("ImagePullBackOff", "Back-off pulling image") == "hopeless"


def test_of_two_containers_that_wait_the_one_without_hope_counts() -> None:
    passing = ContainerState(waiting=Waiting(reason="ErrImagePull", message="i/o timeout"))
    sidecar = ContainerStatus(
        name="sidecar", state=ContainerState(waiting=Waiting(reason="InvalidImageName", message="no"))
    )
    both = pod(passing)
    both.status.container_statuses.append(sidecar)
    assert classify(both, "i", HOUR).phase == "hopeless"


CONTAINERD = (
    'failed to pull and unpack image "docker.io/nobody/nothing:1": failed to resolve reference '
    '"docker.io/nobody/nothing:1": '
)
DENIED = "pull access denied, repository does not exist or may require authorization"


@pytest.mark.parametrize(
    ("reason", "message", "sentence"),
    [
        ("ErrImagePull", f"{CONTAINERD}{DENIED}", f"the image 'i:1' cannot be pulled (ErrImagePull): {DENIED}."),
        (
            "ImagePullBackOff",
            f'Back-off pulling image "nothing:1": ErrImagePull: rpc error: code = Unknown desc = {CONTAINERD}{DENIED}',
            f"the image 'i:1' cannot be pulled (ImagePullBackOff): {DENIED}.",
        ),
        (
            "ImagePullBackOff",
            'Back-off pulling image "nothing:1"',
            "the image 'i:1' cannot be pulled (ImagePullBackOff); ask the operator.",
        ),
        (
            "ErrImageNeverPull",
            'Container image "nothing:1" is not present with pull policy of Never',
            "the image 'i:1' is not on the node and may not be pulled there (ErrImageNeverPull); ask the operator.",
        ),
        (
            "InvalidImageName",
            'Failed to apply default image tag "NO": couldn\'t parse image name "NO": invalid reference format',
            "'i:1' is not the name of an image (InvalidImageName): invalid reference format.",
        ),
        (
            "ErrImagePull",
            "blob not found\n\x1b[2J: https://blobs.example/a/b?sig=secret&x=1: " + "y" * 1000,
            "the image 'i:1' cannot be pulled (ErrImagePull): blob not found [2J: https://blobs.example/a/b "
            + "y" * 251 + "...",
        ),
    ],
)  # fmt: skip
def test_a_failed_pull_is_explained_in_the_words_of_the_registry(reason: str, message: str, sentence: str) -> None:
    judged = classify(pod(ContainerState(waiting=Waiting(reason=reason, message=message))), "i:1", HOUR)
    assert (judged.phase, judged.reason) == ("hopeless", sentence)


def test_the_event_of_a_failed_pull_is_explained_the_same() -> None:
    trouble = StartupErrors()
    trouble.observe(event("Failed", f'Failed to pull image "nothing:1": {CONTAINERD}{DENIED}'), 0)
    assert trouble.messages == f"{DENIED}."


def test_what_preemption_could_not_do_is_left_out() -> None:
    message = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available."
    condition = Condition(type="PodScheduled", status="False", reason="Unschedulable", message=message)
    judged = classify(pod(conditions=[condition]), "i", HOUR)
    assert judged.phase == "unschedulable"
    assert judged.reason == "no node fits the sandbox: 0/1 nodes are available: 1 Insufficient cpu."


def event(reason: str, message: str = "", type: str = "Warning") -> Event:  # noqa: A002
    return Event(metadata=Meta(name="x.1"), type=type, reason=reason, message=message)


EARLY = event(
    "FailedMount",
    "Unable to attach or mount volumes: unmounted volumes=[home], unattached volumes=[home], failed to process "
    "volumes=[home]: error processing PVC sandboxes/sshgate-work-1: failed to fetch PVC from API server: "
    'persistentvolumeclaims "sshgate-work-1" is forbidden: User "system:node:node" cannot get resource '
    '"persistentvolumeclaims" in API group "" in the namespace "sandboxes": no relationship found between node '
    "'node' and this object",
)
NETWORK = event("FailedCreatePodSandBox", "Failed to create pod sandbox: rpc error: code = Unknown desc = no network")
MISSING = event("FailedMount", 'MountVolume.SetUp failed for volume "v" : configmap "gone" not found')


@pytest.mark.parametrize("early", [EARLY, NETWORK], ids=["claim", "network"])
def test_what_a_node_has_reported_once_waits_for_its_next_try(early: Event) -> None:
    """Which comes after 10 to 15 s."""
    trouble = StartupErrors()
    trouble.observe(event("Scheduled", type="Normal"), 0)
    trouble.observe(early, 0.1)
    assert (trouble.messages is not None, trouble.final) == (True, False)
    trouble.observe(event("Pulled", type="Normal"), 15)
    assert (trouble.messages, trouble.final) == (None, False)
    # A later start in the same pod's life begins anew.
    trouble.observe(early, 40)
    assert not trouble.final


def test_a_volume_that_stays_missing_is_final_within_eight_seconds() -> None:
    trouble = StartupErrors()
    report = []
    for at in (0.1, 0.6, 1.6, 3.6, 7.6):
        trouble.observe(MISSING, at)
        report.append(trouble.final)
    assert report == [False, False, False, False, True]
    assert trouble.messages is not None
    assert 'configmap "gone" not found' in trouble.messages


def test_what_cannot_be_scheduled_is_final_by_its_profiles_limit_alone() -> None:
    """The pod is seen to have a node before the event that says so."""
    trouble = StartupErrors()
    for at in (0, 60):
        trouble.observe(event("FailedScheduling", "0/1 nodes are available: 1 Insufficient cpu."), at)
    assert (trouble.messages is not None, trouble.final) == (True, False)
