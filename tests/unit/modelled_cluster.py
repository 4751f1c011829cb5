"""An API server, a scheduler and a kubelet in one small object, for simulating gateways around them.

Requests are applied at once and in order, as etcd would; what is slow or lost between a gateway and the API
server is decided by whoever calls. Every change is an event in a log that each watch reads at its own speed.
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.records import Record
from sshgate.providers.kubernetes.api.objects import Pod
from sshgate.providers.kubernetes.pods import record_of

PodJson = dict[str, Any]


def record_from(pod: PodJson) -> Record:
    """The record of a pod, as the provider reads it."""
    return record_of(msgspec.convert(pod, Pod))


class Refused(Exception):
    """An HTTP status instead of an answer."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class Cluster:
    """The pods, and what has happened to them. ``time`` is the server's clock and is set from outside."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.time = 1_000_000.0
        self.pods: dict[str, PodJson] = {}
        self.log: list[PodJson] = []
        self.ready_at: dict[str, float] = {}
        self._version = 0
        self._made = 0

    def create(self, name: str, marks: dict[str, str], notes: dict[str, str], deadline: int | None = None) -> PodJson:
        if name in self.pods:
            raise Refused(409)
        self._made += 1
        meta = {"name": name, "uid": f"uid-{self._made}", "labels": dict(marks), "annotations": dict(notes)}
        meta["creationTimestamp"] = labels.timestamp(self.time)
        spec: dict[str, Any] = {} if deadline is None else {"activeDeadlineSeconds": deadline}
        self.pods[name] = {"metadata": meta, "spec": spec, "status": {"phase": "Pending"}}
        return self._changed(name)

    def get(self, name: str) -> PodJson:
        if name not in self.pods:
            raise Refused(404)
        return copy.deepcopy(self.pods[name])

    def patch(self, name: str, patch: list[dict[str, Any]]) -> PodJson:
        """RFC 6902, as far as it is used; applied as a whole or refused with 422."""
        changed = self.get(name)
        for operation in patch:
            *path, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
            target = changed
            for part in path:
                if part not in target:
                    raise Refused(422)
                target = target[part]
            if operation["op"] == "test":
                if target.get(last) != operation["value"]:
                    raise Refused(422)
            elif operation["op"] == "add":
                target[last] = operation["value"]
            elif last not in target:
                raise Refused(422)
            elif operation["op"] == "replace":
                target[last] = operation["value"]
            else:
                del target[last]
        self.pods[name] = changed
        return self._changed(name)

    def delete(self, name: str, uid: str, version: str | None) -> None:
        meta = self.get(name)["metadata"]
        if meta["uid"] != uid or version not in (None, meta["resourceVersion"]):
            raise Refused(409)
        if "deletionTimestamp" not in meta:
            self.pods[name]["metadata"]["deletionTimestamp"] = labels.timestamp(self.time)
            self._changed(name)

    # --- what the nodes do ---

    def work(self, name: str, outcome: str = "ready") -> None:
        """One step of one pod: it is scheduled if there is room, started, ends as ``outcome``; or it is gone."""
        pod = self.pods[name]
        meta, status = pod["metadata"], pod["status"]
        if "deletionTimestamp" in meta:
            gone = self.pods.pop(name)
            self.log.append({**copy.deepcopy(gone), "gone": True})
            return
        if "nodeName" not in pod["spec"]:
            if sum("nodeName" in one["spec"] for one in self.pods.values()) >= self.capacity:
                if not status.get("conditions"):
                    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
                    status["conditions"] = [condition]
                    self._changed(name)
                return
            pod["spec"]["nodeName"] = f"node-{meta['uid'][-1]}"
            status |= {"startTime": labels.timestamp(self.time), "conditions": []}
        elif status["phase"] == "Pending" and outcome == "ready":
            status |= {"phase": "Running", "podIP": "10.0.0.1"}
            when = labels.timestamp(self.time)
            status["conditions"] = [{"type": "Ready", "status": "True", "lastTransitionTime": when}]
            self.ready_at[meta["uid"]] = self.time
        elif outcome == "failed" and status["phase"] in ("Pending", "Running"):
            status |= {"phase": "Failed", "reason": "Error", "conditions": []}
        else:
            return
        self._changed(name)

    def _changed(self, name: str) -> PodJson:
        self._version += 1
        self.pods[name]["metadata"]["resourceVersion"] = str(self._version)
        self.log.append(copy.deepcopy(self.pods[name]))
        return copy.deepcopy(self.pods[name])
