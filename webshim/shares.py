"""Links by which others watch one held session: making, listing and revoking them, and whether one is good."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, replace

from sshgate.access.connections import origin_of
from sshgate.access.issued import Shared, Token
from sshgate.access.ledger import Ledger
from sshgate.access.policy import sandbox_name
from sshgate.config.model import Web
from sshgate.config.values import duration
from sshgate.errors import BadRequest, Denied, NoSuchSandbox
from sshgate.lifecycle.clocks import span
from sshgate.session.subsystems.held_sessions import HeldSessions
from sshgate.session.subsystems.registry import LISTS, SubsystemHandlers, SubsystemRequest
from sshgate.session.subsystems.sandboxes import table
from sshgate.telemetry.codes import Code
from webshim.credentials import Principal, Signer
from webshim.login import LOOPBACK, Logins, Refused, token_fields
from webshim.public_endpoint import PublicEndpoint

USUAL_SECONDS = 3600.0
SHORTEST_SECONDS = 60.0
USAGE = "say `ssh -s USER=NAME=SESSION@HOST share [--type] [--for 1h]`."
EXPIRED, REVOKED = "this link has expired.", "this link was revoked by its owner."
TAKEN_AWAY = "this link has ended: its owner's key is not accepted any more."
WRONG = "this link is not complete, or was never one of this gateway."


@dataclass(frozen=True, slots=True)
class Share:
    """A link that somebody has opened."""

    principal: Principal
    """Its owner, and the proof that it rests on. It is no login of who opens the link."""
    source: str
    """The address that it was made from; a key may be good for some addresses only."""
    shared: Shared

    @property
    def id(self) -> str:
        """By which its owner lists and revokes it."""
        return self.principal.id


class BadShare(Exception):
    """A link that shows nothing. The message is one sentence for who has opened it.

    ``principal`` is that of a link that was signed here, for the operator.
    """

    def __init__(self, reason: str, principal: Principal | None = None) -> None:
        super().__init__(reason)
        self.principal = principal


class Shares:
    """All links of a gateway. They are signed, and stand in the ledger, which other gateways read."""

    def __init__(
        self, web: Web, logins: Logins, signer: Signer, ledger: Ledger, endpoint: PublicEndpoint, held: HeldSessions
    ) -> None:
        self._web = web
        self._logins = logins
        self._signer = signer
        self._ledger = ledger
        self._endpoint = endpoint
        self._held = held

    def add_to(self, subsystems: SubsystemHandlers) -> None:
        """Register the handlers."""
        about = "a link by which others watch the held session of USER=NAME=SESSION"
        subsystems.add("share", self.share, about, takes="[--type] [--for 1h]")
        subsystems.add("shares", self.listed, "your links to sessions: id, session, time left", takes=LISTS)
        subsystems.add("unshare", self.unshare, "end a link, or all links to USER=NAME=SESSION", takes="[ID]")

    # --- opening ---

    async def opened(self, word: str, source: str) -> Share:
        """Return what a link is good for. Strangers may send anything.

        Raises:
            BadShare: it is good for nothing.
            Unavailable: it is new here, and the ledger's storage cannot be read.
        """
        principal = self._signer.read("share", word)
        if principal is None:
            # A good link is not throttled: nobody guesses a signature.
            failed: Refused = self._logins.failed(f"share {origin_of(source)}")
            raise BadShare(f"too many wrong links; try again in {failed.wait} s." if failed.wait else WRONG)
        if principal.expires > time.time():
            await self._ledger.look_up(principal.user, principal.id)
        token = self._ledger.of(principal.user).tokens.get(principal.id)
        if token is None or token.shared is None:
            raise BadShare(EXPIRED if principal.expires <= time.time() else REVOKED, principal)
        shared = token.shared
        ends = self._ends(principal.issued, principal.expires)
        owner = replace(principal, expires=ends, proof=shared.proof, certificate=shared.certificate)
        share = Share(owner, token.source, shared)
        if reason := self.over(share):
            raise BadShare(reason, principal)
        return share

    def _ends(self, made: float, ends: float) -> float:
        """Return when a link ends: operators may have shortened the longest time since."""
        return min(ends, made + self._web.share_lifetime)

    def over(self, share: Share) -> str:
        """Return why a link is good no longer, as a sentence; empty: it is."""
        token = self._ledger.of(share.principal.user).tokens.get(share.id)
        if share.principal.expires <= time.time():
            return EXPIRED
        if token is None or token.revoked:
            return REVOKED
        return "" if self._logins.stands(share.principal, share.source) else TAKEN_AWAY

    # --- what ssh prints ---

    async def share(self, request: SubsystemRequest) -> str:
        """The subsystem ``share``: return a link to a held session. Raises ``GateError``."""
        who = request.identity
        types, seconds = self._asked(request.word.split())
        name, session = sandbox_name(who, request.request), who.login.session
        if name is None or session is None:
            raise BadRequest(f"say which session: {USAGE[4:]}")
        principal = self._logins.proven(who, "share", seconds)
        found = await self._held.named(who.user, name, session)
        shared = Shared(name, session, found.id, types, principal.proof, principal.certificate)
        # Anybody can read what is in a link.
        principal = replace(principal, id=secrets.token_hex(8), proof="", certificate=None)
        token = Token(principal.id, principal.issued, principal.expires, who.source, who.fingerprint, shared=shared)
        await self._ledger.issue(who.user, token)
        lasts = principal.expires - principal.issued
        request.events.emit(
            Code.SHARE_CREATED, id=principal.id, seconds=round(lasts), name=name, held=session, types=types
        )
        may = "watch session and type into it" if types else "watch session"
        return (
            f"{self._endpoint.url_at(who.server or LOOPBACK)}/watch#watch={self._signer.sign('share', principal)}\n"
            f"# Who has it can {may.replace('session', f'{name}={session}')}, for {span(lasts)}, or until "
            f"`unshare {principal.id}`\n"
        )

    def _asked(self, words: list[str]) -> tuple[bool, float]:
        types, seconds = False, min(USUAL_SECONDS, self._web.share_lifetime)
        if not self._web.share_lifetime:
            raise Denied("sessions cannot be shared here; operators set web.share_lifetime.")
        while words:
            word = words.pop(0)
            if word == "--type":
                types = True
            elif word == "--for" and words:
                try:
                    seconds = duration(words.pop(0))
                except ValueError as error:
                    raise BadRequest(f"--for: {error}.") from error
            else:
                raise BadRequest(USAGE)
        most = self._web.share_lifetime
        if not min(SHORTEST_SECONDS, most) <= seconds <= most:
            raise BadRequest(f"--for: a link lasts from {span(SHORTEST_SECONDS)} to {span(most)} here.")
        return types, seconds

    async def listed(self, request: SubsystemRequest) -> str:
        """The subsystem ``shares``: the user's links, oldest first, as a table or as JSON. Raises ``GateError``."""
        now = time.time()
        listed = await self._of(request)
        if request.as_json:
            values = [
                {"sandbox": shared.sandbox, "session": shared.session, "types": shared.types, **token_fields(one)}
                for one, shared in listed
            ]
            return json.dumps(values) + "\n"
        if not listed:
            return "you have no links to sessions.\n"
        rows = [
            (
                one.id, f"{shared.sandbox}={shared.session}", "types" if shared.types else "watches",
                span(max(0.0, now - one.made)), span(one.ends - now), one.source,
            )
            for one, shared in listed
        ]  # fmt: skip
        return table(("ID", "SESSION", "WHO OPENS IT", "AGE", "LEFT", "FROM"), rows)

    async def unshare(self, request: SubsystemRequest) -> str:
        """The subsystem ``unshare``: revoke the link of this id, or all to a session. Raises ``GateError``."""
        listed = await self._of(request)
        who = request.identity
        if request.word:
            found = [one for one, _ in listed if one.id == request.word]
        elif who.login.session is not None:
            where = (sandbox_name(who, request.request), who.login.session)
            found = [one for one, shared in listed if (shared.sandbox, shared.session) == where]
        else:
            raise BadRequest("say which: `ssh -s USER@HOST unshare ID`; `ssh -s USER@HOST shares` lists yours.")
        if not found:
            raise NoSuchSandbox("you have no such link; `ssh -s USER@HOST shares` lists yours.")
        for one in found:
            await self._ledger.revoke(who.user, one.id)
            request.events.emit(Code.SHARE_REVOKED, id=one.id)
        return "".join(f"link {one.id} is revoked.\n" for one in found)

    async def _of(self, request: SubsystemRequest) -> list[tuple[Token, Shared]]:
        if not request.identity.restrictions.whole:
            raise Denied("your key is for one command or sandbox only, so links are none of its concern.")
        await self._ledger.refresh()
        now = time.time()
        tokens = sorted(self._ledger.of(request.identity.user).tokens.values(), key=lambda one: one.made)
        links = [replace(one, ends=self._ends(one.made, one.ends)) for one in tokens if one.shared is not None]
        return [(one, one.shared) for one in links if one.shared is not None and not one.revoked and one.ends > now]
