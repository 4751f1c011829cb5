"""Carries out the steps of a ``Claiming`` until a warm sandbox is won or there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sshgate.errors import Unavailable
from sshgate.lifecycle.actions import Delete
from sshgate.lifecycle.claim import Answer, ClaimAttempt, GetPod, GiveUp, TryPatch, Won
from sshgate.lifecycle.records import Record
from sshgate.lifecycle.registry import Registry
from sshgate.lifecycle.schema import label_value
from sshgate.telemetry.codes import Code

# Seconds to wait before reading a pod whose patch was not answered: an API server that restarts refuses connections at
# once, so reading without a pause would use up all attempts.
LOOK_AFTER = (0.05, 0.3, 1.0)


async def take(registry: Registry, claiming: ClaimAttempt, discard: Callable[[Delete], None]) -> Record | None:
    """Claim a warm sandbox. Returns its pod, or ``None`` where the login has to start cold.

    ``discard`` is called with each deletion that is to be carried out: pods that were claimed and are of no use. Raises
    ``Unavailable`` when the API server does not answer; a patch that still arrives then leaves an orphan, which is
    deleted. Cancelling waits for the answer to a patch under way and discards the pod if it was won: otherwise nobody
    would know whether the pod is taken.
    """
    unanswered = 0
    try:
        while True:
            step = claiming.step(registry.now)
            if isinstance(step, Won):
                return step.record
            if isinstance(step, TryPatch):
                answer = await _patch(registry, step, claiming, discard)
                if answer is Answer.REFUSED:
                    registry.events.emit(Code.CLAIM_LOST, sandbox=step.record.name)
            elif isinstance(step, GetPod):
                await asyncio.sleep(LOOK_AFTER[min(unanswered, len(LOOK_AFTER)) - 1])
                answer = await registry.look(step.record)
            elif isinstance(step, GiveUp):
                raise Unavailable("the API server does not answer; try again in a moment.")
            else:
                return None
            unanswered += answer is Answer.UNKNOWN
            claiming.answered(answer, registry.now)
    finally:
        for delete in claiming.discard:
            discard(delete)


async def _patch(
    registry: Registry, step: TryPatch, claiming: ClaimAttempt, discard: Callable[[Delete], None]
) -> Record | Answer:
    request = asyncio.ensure_future(registry.patch(step.record, step.patch))
    try:
        return await asyncio.shield(request)
    except asyncio.CancelledError:
        answer = await request
        if isinstance(answer, Record) and answer.session == label_value(claiming.claim.session):
            discard(Delete(answer, "its login was given up", untouched=False))
        raise
