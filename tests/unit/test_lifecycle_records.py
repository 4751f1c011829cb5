"""What stands on a pod is read back, whatever people have made of it; patches change what they say and no more."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.records import Record, Stage, State, warm_metadata
from sshgate.lifecycle.requests import (
    Claim,
    attach_patch,
    claim_patch,
    deadline,
    detach_patch,
    named_annotations,
    seen_patch,
)
from tests.unit.modelled_cluster import Cluster, Refused, record_from

NOW = Now(wall=1_000_100.0, mono=50.0)
CLAIM = Claim("ada", "s1", "gw", "life1", 3600.0)

texts = st.text(max_size=60)
KEYS = [value for value in vars(labels).values() if isinstance(value, str) and value.startswith(labels.DOMAIN)]


def warm(cluster: Cluster) -> Record:
    """A warm pod, ready."""
    cluster.create("p", *warm_metadata("default", "t1", "gw", "life0"))
    cluster.work("p")
    cluster.work("p")
    return record_from(cluster.get("p"))


def test_a_warm_pod_reads_as_one() -> None:
    record = warm(Cluster(1))
    assert (record.state, record.stage, record.profile, record.template) == (State.WARM, Stage.READY, "default", "t1")
    assert record.usable
    assert repr(record) == "<Record p: warm ready>"


@given(user=texts, session=st.text(min_size=1, max_size=80), lifetime=st.floats(1, 1e6))
def test_a_claim_is_read_back_from_the_pod_it_was_written_on(user: str, session: str, lifetime: float) -> None:
    cluster = Cluster(1)
    claim = Claim(user, session, "gw", "life1", lifetime)
    now = Now(cluster.time, 0.0)
    record = record_from(cluster.patch("p", claim_patch(warm(cluster), claim, now)))
    assert record.state is State.CLAIMED
    assert record.session == labels.label_value(session)
    assert record.user_hash == labels.user_hash(user)
    assert record.user == (labels.printable(user) or None)
    assert record.instance == "life1"
    assert record.claimed_at == pytest.approx(cluster.time, abs=0.001)
    assert record.expires_at == pytest.approx(cluster.time + lifetime, abs=0.001)
    assert record.deadline is not None
    assert lifetime <= record.deadline <= lifetime + labels.KUBELET_GRACE + 1


def test_of_two_claims_on_one_pod_the_second_is_refused() -> None:
    cluster = Cluster(1)
    seen_by_both = warm(cluster)
    cluster.patch("p", claim_patch(seen_by_both, CLAIM, NOW))
    with pytest.raises(Refused, match="422"):
        cluster.patch("p", claim_patch(seen_by_both, Claim("bob", "s2", "gw2", "life2", 60.0), NOW))
    assert record_from(cluster.get("p")).session == "s1"


def test_a_claim_is_refused_once_the_pod_is_being_deleted_was_made_anew_or_is_of_another_template() -> None:
    cluster = Cluster(1)
    known = warm(cluster)
    patch = claim_patch(known, CLAIM, NOW)
    for change in ({"uid": "other"}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}):
        pod = cluster.get("p")
        cluster.pods["p"]["metadata"] |= change
        with pytest.raises(Refused, match="422"):
            cluster.patch("p", patch)
        cluster.pods["p"] = pod
    cluster.pods["p"]["metadata"]["labels"][labels.TEMPLATE] = "t2"
    with pytest.raises(Refused, match="422"):
        cluster.patch("p", patch)


def test_a_status_written_meanwhile_does_not_refuse_a_claim() -> None:
    cluster = Cluster(1)
    known = warm(cluster)
    cluster.pods["p"]["metadata"]["resourceVersion"] = "99999"
    assert record_from(cluster.patch("p", claim_patch(known, CLAIM, NOW))).session == "s1"


def test_the_deadline_counts_from_the_start_of_the_pod() -> None:
    pod = Record("p", "u", created=NOW.wall - 500, started=NOW.wall - 400)
    assert deadline(pod, 60.0, NOW) == 400 + 60 + labels.KUBELET_GRACE
    assert deadline(Record("p", "u", created=NOW.wall - 500), 60.0, NOW) == 500 + 60 + labels.KUBELET_GRACE


def test_a_node_whose_clock_is_ahead_does_not_shorten_a_lifetime() -> None:
    assert deadline(Record("p", "u", started=NOW.wall + 9000), 60.0, NOW) == 60 + labels.KUBELET_GRACE


@given(st.floats(-1e12, 1e12), st.floats(0, 1e12))
def test_a_deadline_is_always_one_that_kubernetes_takes(started: float, lifetime: float) -> None:
    assert 1 <= deadline(Record("p", "u", started=started), lifetime, NOW) < 2**31


def test_attaching_and_detaching_leaves_only_the_moment_it_ended() -> None:
    cluster = Cluster(1)
    cluster.create("p", {labels.STATE: labels.CLAIMED}, named_annotations(CLAIM, NOW))
    record = record_from(cluster.patch("p", attach_patch(record_from(cluster.get("p")), "life2", NOW)))
    assert record.attached == {"life1", "life2"}
    record = record_from(cluster.patch("p", detach_patch(record, "life1", NOW)))
    assert record.attached == {"life2"}
    assert record.detached_at == NOW.wall
    # The leader may already have tidied up: a second time changes nothing but the moment.
    assert record_from(cluster.patch("p", detach_patch(record, "life1", NOW))).attached == {"life2"}
    assert record_from(cluster.patch("p", seen_patch(record, NOW))).last_seen == NOW.wall


@pytest.mark.parametrize(("promised", "read"), [(0.0, 0.0), (599.5, 600.0), (86_400.0, 86_400.0), (None, None)])
def test_for_how_long_a_named_sandbox_is_kept_is_read_back(promised: float | None, read: float | None) -> None:
    cluster = Cluster(1)
    claim = Claim("ada", "s1", "gw", "life1", 3600.0, promised)
    cluster.create("p", {labels.STATE: labels.CLAIMED}, named_annotations(claim, NOW))
    assert record_from(cluster.get("p")).kept_for == read


@pytest.mark.parametrize("written", ["", "-1", "1.5", "inf", "9" * 400, "1e9"])
def test_what_people_make_of_that_is_no_promise(written: str) -> None:
    cluster = Cluster(1)
    cluster.create("p", {labels.STATE: labels.CLAIMED}, {labels.KEPT_FOR: written})
    assert record_from(cluster.get("p")).kept_for is None


def test_nobody_joins_a_sandbox_that_is_draining_or_going() -> None:
    cluster = Cluster(1)
    cluster.create("p", {labels.STATE: labels.DRAINING}, {labels.INSTANCE: "life1"})
    patch = attach_patch(record_from(cluster.get("p")), "life2", NOW)
    with pytest.raises(Refused, match="422"):
        cluster.patch("p", patch)
    cluster.pods["p"]["metadata"]["labels"][labels.STATE] = labels.CLAIMED
    cluster.delete("p", record_from(cluster.get("p")).uid, None)
    with pytest.raises(Refused, match="422"):
        cluster.patch("p", patch)


marks = st.dictionaries(st.sampled_from([*KEYS, labels.ATTACHED + "x"]) | texts, texts)


@given(marks, marks, texts)
def test_labels_annotations_and_times_can_hold_any_text_and_a_pod_is_still_read(
    notes: dict[str, str], written: dict[str, str], time: str
) -> None:
    meta = {"name": "p", "uid": "u", "labels": written | {labels.STATE: "?"}, "annotations": notes}
    pod = {"metadata": meta | {"creationTimestamp": time, "deletionTimestamp": time}, "status": {"startTime": time}}
    assert record_from(pod).state is State.UNKNOWN


def test_a_state_we_do_not_know_is_neither_warm_nor_claimed() -> None:
    pod = {"metadata": {"name": "p", "uid": "u", "labels": {labels.STATE: "hibernating"}}}
    assert record_from(pod).state is State.UNKNOWN


@pytest.mark.parametrize(
    ("status", "stage", "reason"),
    [
        ({"phase": "Pending"}, Stage.STARTING, None),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]},
            Stage.UNSCHEDULABLE,
            "Unschedulable",
        ),
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImageNeverPull"}}}]},
            Stage.BLOCKED,
            "ErrImageNeverPull",
        ),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, Stage.STARTING, None),
        ({"phase": "Failed", "reason": "Evicted"}, Stage.FINISHED, "Evicted"),
    ],
)
def test_the_stage_of_a_pod_follows_from_its_status(status: dict[str, Any], stage: Stage, reason: str | None) -> None:
    record = record_from({"metadata": {"name": "p", "uid": "u"}, "status": status})
    assert (record.stage, record.reason) == (stage, reason)


@given(st.floats(0, 4e9))
def test_a_time_is_read_back_as_it_was_written(wall: float) -> None:
    assert labels.parse_timestamp(labels.timestamp(wall)) == pytest.approx(wall, abs=0.001)


@pytest.mark.parametrize("text", [None, "", "yesterday", "2026-01-01", "2026-01-01T00:00:00", "9999999999"])
def test_what_is_no_time_is_none(text: str | None) -> None:
    assert labels.parse_timestamp(text) is None


@given(texts, st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True))
def test_a_named_sandbox_has_one_pod_name_that_kubernetes_takes(user: str, name: str) -> None:
    pod = labels.named_pod(user, name)
    assert len(pod) <= 63
    assert pod == labels.named_pod(user, name)
    assert pod != labels.named_pod(user + "x", name)
