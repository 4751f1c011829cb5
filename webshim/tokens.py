"""The subsystems for a user's own tokens: `ssh -s USER@HOST tokens` and `revoke-token ID`."""

from __future__ import annotations

import time

from sshgate.access.ledger import Ledger
from sshgate.errors import BadRequest, Denied
from sshgate.session.subsystems.registry import SubsystemRequest
from sshgate.session.subsystems.sandboxes import token_table
from sshgate.telemetry.codes import Code


class TokenSubsystems:
    """The handlers of `tokens` and `revoke-token`, for the user who is logged in.

    Keys that may not log in a browser are refused. Both handlers raise ``GateError``.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def list(self, question: SubsystemRequest) -> str:
        """Return a table of the user's valid tokens, oldest first."""
        _check(question)
        await self._ledger.refresh()
        now = time.time()
        alive = [one for one in self._ledger.of(question.identity.user).tokens.values() if one.ends > now]
        listed = sorted((one for one in alive if not one.revoked), key=lambda one: one.made)
        return token_table(listed, now) if listed else "you have no tokens.\n"

    async def revoke(self, question: SubsystemRequest) -> str:
        """Revoke the token whose id the request contains."""
        _check(question)
        if not question.word:
            raise BadRequest("say which: `ssh -s USER@HOST revoke-token ID`; `ssh -s USER@HOST tokens` lists yours.")
        user = question.identity.user
        if await self._ledger.revoke(user, question.word) is None:
            raise BadRequest(f"you have no token {question.word[:40]!r}; `ssh -s USER@HOST tokens` lists yours.")
        question.trail.emit(Code.WEB_TOKEN_REVOKED, id=question.word)
        return f"token {question.word} is revoked.\n"


def _check(question: SubsystemRequest) -> None:
    if not question.identity.restrictions.whole:
        raise Denied("your key opens no browser, so tokens are none of its concern.")
