"""Logins of browsers and programs: links and tokens printed by SSH, passwords, a trusted proxy; and their validity."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import time
from dataclasses import dataclass, replace

import msgspec

from sshgate.access.authorized_keys import Keyring
from sshgate.access.connections import origin_of
from sshgate.access.identity import Identity, LoginName
from sshgate.access.issued import Logout, Token
from sshgate.access.ledger import Ledger, MemoryUserRecords
from sshgate.access.siblings import PASSWORDS_AT_A_TIME, Siblings
from sshgate.config.model import Web
from sshgate.errors import BadRequest, Denied
from sshgate.session.subsystems.registry import SubsystemRequest
from sshgate.session.subsystems.sandboxes import token_table
from sshgate.telemetry.codes import Code
from sshgate.telemetry.rate_limit import RateLimit
from webshim.credentials import TOKEN_LENGTH, Method, OneTimeTokens, Principal, Signer
from webshim.passwords import UsersFile
from webshim.public_endpoint import PublicEndpoint

LINK_SECONDS = 60.0
# An address may fail for all users together this many times as often as for one user: enough for people who share
# an address, too little for guessing user names.
USERS_BEHIND_AN_ADDRESS = 5
LOOPBACK = "127.0.0.1"
# Revocation of a certificate cannot be checked later, so logins that were made with one are short.
CERTIFICATE_SECONDS = 3600.0
_CERTIFICATE = "cert "
_TAKE, _LOOK, _FAILED = "web link taken", "web link", "web login failed"


@dataclass(frozen=True, slots=True)
class Refused:
    """A failed login."""

    wait: int = 0
    """Seconds until another attempt is allowed; 0: at once."""


class Logins:
    """All ways to authenticate a request, and to check that a login is still valid."""

    def __init__(
        self,
        web: Web,
        keyring: Keyring,
        signer: Signer,
        place: PublicEndpoint,
        ledger: Ledger | None = None,
        siblings: Siblings | None = None,
    ) -> None:
        """
        Args:
            ledger: holds tokens and logouts, shared with other gateways; ``None``: one in memory, not shared.
            siblings: the other workers, which have links of their own; failed logins count at all.
        """
        self._web = web
        self._keyring = keyring
        self._signer = signer
        self._endpoint = place
        # A link is one that its worker owns: no other one is asked about it.
        self._links: OneTimeTokens[Principal] = OneTimeTokens(
            LINK_SECONDS, fits=lambda ticket: siblings is None or siblings.owner(ticket) == siblings.index
        )
        self._users = UsersFile(web.users_file) if web.users_file is not None else None
        self._failures = RateLimit()
        self._turns = asyncio.Semaphore(PASSWORDS_AT_A_TIME)
        self._ledger = ledger if ledger is not None else Ledger(MemoryUserRecords())
        self._siblings = siblings
        self._shared: contextlib.AbstractAsyncContextManager[None] = (
            siblings.password_places() if siblings is not None else contextlib.nullcontext()
        )
        if siblings is not None:
            siblings.answers(_TAKE, self._take_here)
            siblings.answers(_LOOK, self._look_here)
            siblings.handle(_FAILED, lambda _, key: self._failures.count(key))

    @property
    def methods(self) -> list[str]:
        """The ways in which users can log in by themselves: ``link``, and ``password`` if there is a users file."""
        return ["link", *(["password"] if self._users is not None else [])]

    # --- logging in ---

    async def by_link(self, ticket: str, source: str) -> Principal | Refused:
        """Log in by the ticket of a link, which is used up."""
        # A valid link is not throttled: 192 random bits cannot be guessed, and failures of others at the same address
        # must not block it.
        principal = self._links.take(ticket) or await self._elsewhere(_TAKE, ticket)
        if principal is not None and self.stands(principal, source):
            return principal
        return self.failed(f"link {origin_of(source)}")

    def failed(self, key: str) -> Refused:
        """Count a failed attempt of this key, and return it with the time to wait."""
        if wait := self._failures.wait(key, self._web.login_attempts):
            return Refused(wait)
        self._failed(key)
        return Refused()

    async def invited(self, ticket: str) -> str | None:
        """Return the user that a link would log in, without using it up; ``None`` if it is not valid."""
        principal = self._links.look(ticket) or await self._elsewhere(_LOOK, ticket)
        return principal.user if principal is not None else None

    async def by_password(self, user: str, password: str, source: str) -> Principal | Refused:
        """Log in by a password. An unknown user takes the same time as a wrong password.

        Failures are throttled per user and address, and per address, so nobody can lock out a user from another
        address. Only ``PASSWORDS_AT_A_TIME`` checks run at once in all workers, which bounds the guesses of all
        addresses together.
        """
        origin, most = origin_of(source), self._web.login_attempts
        # Other workers get the key, so it must be short whatever somebody sends as a name.
        digest = hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()
        limits = [(f"user {digest} {origin}", most), (f"all {origin}", most * USERS_BEHIND_AN_ADDRESS)]
        async with self._turns, self._shared:
            # Checked here and not earlier: other attempts may have failed while this one was waiting.
            if wait := max(self._failures.wait(*limit) for limit in limits):
                return Refused(wait)
            proof = await self._users.check(user, password) if self._users is not None else None
            if proof is None:
                for key, _ in limits:
                    self._failed(key)
                return Refused()
        return self._principal(user, "password", proof)

    # --- what other workers know ---

    async def _elsewhere(self, topic: str, ticket: str) -> Principal | None:
        """Ask the worker that alone can have issued a ticket, if that is another one, for its meaning."""
        # Strangers may send anything, and as often as they like.
        if self._siblings is None or len(ticket) != TOKEN_LENGTH or not ticket.isascii():
            return None
        answers = await self._siblings.ask(topic, ticket, only=self._siblings.owner(ticket))
        found = next(iter(answers.values()), None)
        return None if found is None else msgspec.convert(found, Principal)

    async def _take_here(self, ticket: str) -> Principal | None:
        return self._links.take(ticket)

    async def _look_here(self, ticket: str) -> Principal | None:
        return self._links.look(ticket)

    def _failed(self, key: str) -> None:
        self._failures.count(key)
        if self._siblings is not None:
            self._siblings.report(_FAILED, key)

    def by_proxy(self, user: str) -> Principal:
        """Return the principal for a user whom the trusted proxy has named. The caller has checked its secret."""
        return self._principal(user, "proxy", "")

    def by_cookie(self, word: str, source: str) -> Principal | None:
        """Return the principal of a cookie; ``None`` if it is not valid."""
        return self._alive(self._signer.read("cookie", word), source)

    async def by_token(self, word: str, source: str) -> Principal | None:
        """Return the principal of a bearer token; ``None`` if it is not valid.

        Raises ``Unavailable`` if the token is new here and the ledger's storage cannot be read.
        """
        principal = self._signer.read("token", word)
        if principal is not None and principal.expires > time.time():
            await self._ledger.look_up(principal.user, principal.id)
        return self._alive(principal, source)

    def cookie(self, principal: Principal) -> str:
        """Return the value of the cookie for a login."""
        return self._signer.sign("cookie", principal)

    async def logout(self, principal: Principal) -> None:
        """Invalidate a cookie or token, here at once, at other gateways within seconds, and across restarts.

        If it cannot be saved, saving is tried again in the background (see ``Ledger.logout``).
        """
        if principal.method == "token":
            await self._ledger.give_up(principal.user, principal.id)
        else:
            await self._ledger.logout(principal.user, principal.id, Logout(principal.issued, principal.expires))

    def signed(self, word: str, token: bool) -> Principal | None:
        """Return the principal that a cookie or token was signed for, even if it is no longer valid: for events."""
        return self._signer.read("token" if token else "cookie", word)

    # --- validity ---

    def alive(self, principal: Principal, source: str) -> bool:
        """Return whether a login is still valid: not expired, logged out or revoked, and its proof still holds."""
        return principal.expires > time.time() and not self._lost(principal) and self.stands(principal, source)

    def _lost(self, principal: Principal) -> bool:
        issued = self._ledger.of(principal.user)
        return issued.lost(principal.id, principal.issued, token=principal.method in ("token", "share"))

    def stands(self, principal: Principal, source: str) -> bool:
        """Return whether the proof of a login still holds. Expiry and logout are not checked; see ``alive``.

        The key or certificate must still be accepted from ``source``, the password be unchanged, the token not
        revoked, or the proxy still be configured with a secret.
        """
        if principal.method in ("token", "share") and self._lost(principal):
            return False
        if principal.method == "password":
            return self._users is not None and secrets.compare_digest(
                self._users.proof(principal.user) or "", principal.proof
            )
        if principal.method == "proxy":
            return self._web.proxy is not None and self._web.proxy.secret_file is not None
        now = time.time()
        if principal.certificate is not None:
            allowed = self._keyring.certified(principal.user, principal.certificate, source, now)
        else:
            allowed = self._keyring.holder(principal.user, principal.proof, source, now)
        # The key may have been restricted to a command since the login.
        return allowed is not None and allowed.whole

    def _alive(self, principal: Principal | None, source: str) -> Principal | None:
        return principal if principal is not None and self.alive(principal, source) else None

    # --- what ssh prints ---

    async def web(self, request: SubsystemRequest) -> str:
        """The subsystem ``web``: return a link that logs a browser in as the user. Raises ``GateError``."""
        principal = self._by_ssh(request.identity, "link", self._web.login_lifetime)
        text = self._link(request.identity, principal) + "\n"
        request.events.emit(Code.WEB_LINK_ISSUED, id=principal.id)
        if self._endpoint.anywhere:
            text += (
                "# Where that is not how you reach this gateway: put its name there; operators set web.public_url.\n"
            )
        return text

    def login_link(self, identity: Identity, seconds: float | None = None) -> str:
        """Return a login link for a user who has logged in by SSH.

        Args:
            seconds: how long the link is valid; ``None``: ``LINK_SECONDS``.

        Raises:
            GateError: the key's restrictions do not allow it.
        """
        return self._link(identity, self._by_ssh(identity, "link", self._web.login_lifetime), seconds)

    def _link(self, identity: Identity, principal: Principal, seconds: float | None = None) -> str:
        ticket = self._links.issue(principal, seconds)
        return f"{self._endpoint.url_at(identity.server or LOOPBACK)}/#login={ticket}"

    async def token(self, request: SubsystemRequest) -> str:
        """The subsystem ``token``: return a new bearer token for programs. Raises ``GateError``."""
        who = request.identity
        principal = self._by_ssh(who, "token", self._web.token_lifetime)
        principal = replace(principal, id=secrets.token_hex(8))
        await self._ledger.issue(
            who.user, Token(principal.id, principal.issued, principal.expires, who.source, who.fingerprint)
        )
        request.events.emit(Code.WEB_TOKEN_ISSUED, id=principal.id, seconds=round(principal.expires - principal.issued))
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(principal.expires))
        about = f"for {principal.user}, until {until}, or until `revoke-token {principal.id}`"
        return f"{self._signer.sign('token', principal)}\n# Authorization: Bearer ..., {about}\n"

    def _by_ssh(self, identity: Identity, method: Method, lifetime: float) -> Principal:
        if identity.login != LoginName(identity.user) and identity.restrictions.whole:
            raise BadRequest("log in by your plain name for this; profile and name are chosen in the browser.")
        return self.proven(identity, method, lifetime)

    def proven(self, identity: Identity, method: Method, lifetime: float) -> Principal:
        """Return a principal that stands as long as the key or certificate of this login. Raises ``GateError``."""
        if not identity.restrictions.terminal:
            raise Denied("your key does not allow terminals, so it opens no browser either.")
        if not identity.restrictions.whole:
            raise Denied("your key is for one command or sandbox only, so it opens no browser.")
        principal = self._principal(identity.user, method, identity.fingerprint, lifetime)
        shown = identity.certificate
        if shown is None:
            return principal
        ends = min(principal.expires, principal.issued + CERTIFICATE_SECONDS, shown.ends or principal.expires)
        principal = replace(principal, proof=_CERTIFICATE + identity.fingerprint, certificate=shown, expires=ends)
        if not self._signer.fits(principal):
            raise BadRequest("your certificate names too many addresses or principals for a login by browser or token.")
        return principal

    def _principal(self, user: str, method: Method, proof: str, lifetime: float | None = None) -> Principal:
        now = time.time()
        return Principal(
            user, method, proof, secrets.token_urlsafe(18), now, now + (lifetime or self._web.login_lifetime)
        )


class TokenSubsystems:
    """The handlers of `tokens` and `revoke-token`, for the user who is logged in.

    Keys that may not log in a browser are refused. Both handlers raise ``GateError``.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def list(self, request: SubsystemRequest) -> str:
        """List the user's valid tokens, oldest first, as a table or as JSON with times in seconds since the epoch."""
        _check(request)
        await self._ledger.refresh()
        now = time.time()
        alive = [one for one in self._ledger.of(request.identity.user).tokens.values() if one.ends > now]
        listed = sorted((one for one in alive if not one.revoked and one.shared is None), key=lambda one: one.made)
        if request.as_json:
            return json.dumps([token_fields(one) for one in listed]) + "\n"
        return token_table(listed, now) if listed else "you have no tokens.\n"

    async def revoke(self, request: SubsystemRequest) -> str:
        """Revoke the token whose id the request contains."""
        _check(request)
        if not request.word:
            raise BadRequest("say which: `ssh -s USER@HOST revoke-token ID`; `ssh -s USER@HOST tokens` lists yours.")
        user = request.identity.user
        if await self._ledger.revoke(user, request.word) is None:
            raise BadRequest(f"you have no token {request.word[:40]!r}; `ssh -s USER@HOST tokens` lists yours.")
        request.events.emit(Code.WEB_TOKEN_REVOKED, id=request.word)
        return f"token {request.word} is revoked.\n"


def token_fields(token: Token) -> dict[str, object]:
    """Return what its user sees of a token or link as JSON."""
    return {field: getattr(token, field) for field in ("id", "made", "ends", "source", "key")}


def _check(request: SubsystemRequest) -> None:
    if not request.identity.restrictions.whole:
        raise Denied("your key opens no browser, so tokens are none of its concern.")
