"""Which named sandboxes are kept: the rules by profile, and a look whether anything runs in one."""

from __future__ import annotations

from collections.abc import Mapping

from sshgate.config import Profile
from sshgate.lifecycle.reap import Rules
from sshgate.sandbox import labels
from sshgate.sandbox.kubernetes.client import ApiServer
from sshgate.sandbox.kubernetes.objects import Pod
from sshgate.sandbox.kubernetes.removal import nothing_to_remove
from sshgate.sandbox.kubernetes.sandbox import KubernetesSandbox
from sshgate.sandbox.sideexecs import NOBODY, ExecLimits


def rules_of(profiles: Mapping[str, Profile]) -> Rules:
    """How long each profile's named sandboxes are kept without clients."""
    return Rules({labels.label_value(name): profile.limits.detached for name, profile in profiles.items()})


async def anything_runs(api: ApiServer, pod: Pod, profile: Profile, limits: ExecLimits) -> bool:
    """Whether any program runs in this pod. True when it cannot be told."""
    # Who only looks removes nothing.
    return await KubernetesSandbox(api, pod, profile, lambda _: nothing_to_remove(), limits, NOBODY).aside.anything()
