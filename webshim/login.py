"""Authentication in the browser: links and tokens by SSH, passwords, a trusted proxy; and whether it still stands."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, replace
from typing import Protocol

from sshgate.access.connections import origin_of
from sshgate.access.identity import Certified, Identity, LoginName, Restrictions
from sshgate.access.issued import Logout, Token
from sshgate.access.ledger import Ledger, Memory
from sshgate.config.model import Web
from sshgate.errors import BadRequest, Denied
from sshgate.session.subsystems.registry import SubsystemRequest
from sshgate.telemetry.codes import Code
from webshim.one_time_tokens import OneTimeTokens
from webshim.passwords import UsersFile
from webshim.principal import Method, Principal
from webshim.public_endpoint import PublicEndpoint
from webshim.signing import Signer
from webshim.throttle import Throttle

LINK_SECONDS = 60.0
# Each look at a password takes 64 MiB for some ten milliseconds.
PASSWORDS_AT_A_TIME = 2
# Failures of one address over all users, in those that one user may have there: a house, not a guesser of names.
USERS_BEHIND_AN_ADDRESS = 5
LOOPBACK = "127.0.0.1"
# Whether a certificate has been revoked cannot be seen afterwards: such logins are short.
CERTIFICATE_SECONDS = 3600.0
_CERTIFICATE = "cert "


class Keyring(Protocol):
    """What the SSH keys say of a login that began with one."""

    def holder(self, user: str, fingerprint: str, source: str, now: float) -> Restrictions | None:
        """What this key may do for this user now; ``None``: nothing."""

    def certified(self, user: str, certificate: Certified, source: str, now: float) -> Restrictions | None:
        """What the signer of this certificate allows its owner now; ``None``: nothing."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No login, and in how many seconds another attempt makes sense (0: at once)."""

    wait: int = 0


class Logins:
    """Everything that can make a request somebody's."""

    def __init__(
        self, web: Web, keyring: Keyring, signer: Signer, place: PublicEndpoint, ledger: Ledger | None = None
    ) -> None:
        """``ledger``: what was issued before and elsewhere; ``None``: nothing, and nobody else is told."""
        self._web = web
        self._keyring = keyring
        self._signer = signer
        self._place = place
        self._links: OneTimeTokens[Principal] = OneTimeTokens(LINK_SECONDS)
        self._users = UsersFile(web.users_file) if web.users_file is not None else None
        self._throttle = Throttle(web.login_attempts)
        self._crowd = Throttle(web.login_attempts * USERS_BEHIND_AN_ADDRESS)
        self._turns = asyncio.Semaphore(PASSWORDS_AT_A_TIME)
        self._ledger = ledger if ledger is not None else Ledger(Memory())

    def __repr__(self) -> str:
        return f"<Logins {self._links!r}, {self._throttle!r}, {self._ledger!r}>"

    @property
    def ways(self) -> list[str]:
        """How people can log in by themselves."""
        return ["link", *(["password"] if self._users is not None else [])]

    # --- logging in ---

    def by_link(self, ticket: str, source: str) -> Principal | Refused:
        """Use up a link."""
        # Before the throttle: 192 random bits need none, and who guesses here must not shut out a neighbour's link.
        visitor = self._links.take(ticket)
        if visitor is not None and self.stands(visitor, source):
            return visitor
        key = _from(source)
        if wait := self._throttle.wait(key):
            return Refused(wait)
        self._throttle.failed(key)
        return Refused()

    def invited(self, ticket: str) -> str | None:
        """Whom a link would log in; it stays good."""
        visitor = self._links.look(ticket)
        return visitor.user if visitor is not None else None

    async def by_password(self, user: str, password: str, source: str) -> Principal | Refused:
        """Check a password. An unknown user costs the same time as a wrong one.

        Failures count for a user together with the address that they come from, and for the address: nobody locks a
        user out from elsewhere. How fast all addresses together can guess is bound by the turns.
        """
        crowd = _from(source)
        key = f"{user[:200]} {crowd}"
        async with self._turns:
            # Asked when it is this one's turn: those that waited beside it may have failed since.
            if wait := max(self._throttle.wait(key), self._crowd.wait(crowd)):
                return Refused(wait)
            proof = await self._users.check(user, password) if self._users is not None else None
            if proof is None:
                self._throttle.failed(key)
                self._crowd.failed(crowd)
                return Refused()
        return self._visitor(user, "password", proof)

    def by_proxy(self, user: str) -> Principal:
        """A proxy that has shown its secret says so."""
        return self._visitor(user, "proxy", "")

    def by_cookie(self, word: str, source: str) -> Principal | None:
        """Who a cookie is, where its login still stands."""
        return self._alive(self._signer.read("cookie", word), source)

    def by_token(self, word: str, source: str) -> Principal | None:
        """Who a bearer token is, where it still stands."""
        return self._alive(self._signer.read("token", word), source)

    def cookie(self, visitor: Principal) -> str:
        """The cookie of a login."""
        return self._signer.sign("cookie", visitor)

    async def logout(self, visitor: Principal) -> None:
        """Its cookie or token is worth nothing from now on, at any gateway and after any restart."""
        if visitor.method == "token":
            await self._ledger.give_up(visitor.user, visitor.id)
        else:
            await self._ledger.logout(visitor.user, visitor.id, Logout(visitor.issued, visitor.expires))

    def signed(self, word: str, token: bool) -> Principal | None:
        """Who a cookie or token was signed for, whatever it is worth now: for events."""
        return self._signer.read("token" if token else "cookie", word)

    # --- does it still hold ---

    def alive(self, visitor: Principal, source: str) -> bool:
        """Whether the login may go on: neither over, nor logged out, nor without its proof."""
        return visitor.expires > time.time() and not self._lost(visitor) and self.stands(visitor, source)

    def _lost(self, visitor: Principal) -> bool:
        issued = self._ledger.of(visitor.user)
        return issued.lost(visitor.id, visitor.issued, token=visitor.method == "token")

    def stands(self, visitor: Principal, source: str) -> bool:
        """Whether what proved the login still proves it: its user was not removed, nor the key, password or token."""
        if visitor.method == "token" and self._lost(visitor):
            return False
        if visitor.method == "password":
            return self._users is not None and secrets.compare_digest(
                self._users.proof(visitor.user) or "", visitor.proof
            )
        if visitor.method == "proxy":
            return self._web.proxy is not None and self._web.proxy.secret_file is not None
        now = time.time()
        if visitor.certificate is not None:
            allowed = self._keyring.certified(visitor.user, visitor.certificate, source, now)
        else:
            allowed = self._keyring.holder(visitor.user, visitor.proof, source, now)
        # A key that was bound to a command since then must not open shells any more.
        return allowed is not None and allowed.whole

    def _alive(self, visitor: Principal | None, source: str) -> Principal | None:
        return visitor if visitor is not None and self.alive(visitor, source) else None

    # --- what ssh prints ---

    async def web(self, question: SubsystemRequest) -> str:
        """The verb ``web``: a link that logs the browser in as whoever asks."""
        visitor = self._by_ssh(question.identity, "link", self._web.login_lifetime)
        text = self._link(question.identity, visitor) + "\n"
        question.trail.emit(Code.WEB_LINK_ISSUED, id=visitor.id)
        if self._place.anywhere:
            text += (
                "# Where that is not how you reach this gateway: put its name there; operators set web.public_url.\n"
            )
        return text

    def invitation(self, identity: Identity, seconds: float | None = None) -> str:
        """The link for somebody who has logged in by SSH; good for ``seconds``, a minute where none are given."""
        return self._link(identity, self._by_ssh(identity, "link", self._web.login_lifetime), seconds)

    def _link(self, identity: Identity, visitor: Principal, seconds: float | None = None) -> str:
        ticket = self._links.issue(visitor, seconds)
        return f"{self._place.url_at(identity.server or LOOPBACK)}/#login={ticket}"

    async def token(self, question: SubsystemRequest) -> str:
        """The verb ``token``: a bearer token for programs."""
        who = question.identity
        visitor = self._by_ssh(who, "token", self._web.token_lifetime)
        visitor = replace(visitor, id=secrets.token_hex(8))
        await self._ledger.issue(
            who.user, Token(visitor.id, visitor.issued, visitor.expires, who.source, who.fingerprint)
        )
        question.trail.emit(Code.WEB_TOKEN_ISSUED, id=visitor.id, seconds=round(visitor.expires - visitor.issued))
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(visitor.expires))
        return (
            f"{self._signer.sign('token', visitor)}\n"
            f"# Authorization: Bearer ..., for {visitor.user}, until {until}, or until `revoke-token {visitor.id}`\n"
        )

    def _by_ssh(self, identity: Identity, method: Method, lifetime: float) -> Principal:
        if not identity.restrictions.terminal:
            raise Denied("your key does not allow terminals, so it opens no browser either.")
        if not identity.restrictions.whole:
            raise Denied("your key is for one command or sandbox only, so it opens no browser.")
        if identity.login != LoginName(identity.user):
            raise BadRequest("log in by your plain name for this; profile and name are chosen in the browser.")
        visitor = self._visitor(identity.user, method, identity.fingerprint, lifetime)
        shown = identity.certificate
        if shown is None:
            return visitor
        ends = min(visitor.expires, visitor.issued + CERTIFICATE_SECONDS, shown.ends or visitor.expires)
        visitor = replace(visitor, proof=_CERTIFICATE + identity.fingerprint, certificate=shown, expires=ends)
        if not self._signer.fits(visitor):
            raise BadRequest("your certificate names too many addresses or principals for a login by browser or token.")
        return visitor

    def _visitor(self, user: str, method: Method, proof: str, lifetime: float | None = None) -> Principal:
        now = time.time()
        return Principal(
            user, method, proof, secrets.token_urlsafe(18), now, now + (lifetime or self._web.login_lifetime)
        )


def _from(source: str) -> str:
    return f"from {origin_of(source)}"
