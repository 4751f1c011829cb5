"""What decides how long named sandboxes are kept: the rules by profile, and whether anything runs in one."""

from __future__ import annotations

from collections.abc import Mapping

from sshgate.config.model import Profile
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.reap_plan import Rules
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.objects import Pod
from sshgate.providers.kubernetes.deletion import nothing_to_remove
from sshgate.providers.kubernetes.sandbox import KubernetesSandbox
from sshgate.sandbox.side_execs import NOBODY, ExecLimits


def rules_of(profiles: Mapping[str, Profile]) -> Rules:
    """How long named sandboxes are kept without clients, by profile."""
    return Rules({labels.label_value(name): profile.limits.detached for name, profile in profiles.items()})


async def anything_runs(api: ApiServer, pod: Pod, profile: Profile, limits: ExecLimits) -> bool:
    """Whether any program runs in this pod; true if that cannot be determined."""
    # The sandbox object is temporary and must not delete the pod.
    return await KubernetesSandbox(api, pod, profile, lambda _: nothing_to_remove(), limits, NOBODY).aside.anything()
