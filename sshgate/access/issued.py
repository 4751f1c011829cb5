"""The tokens and logouts of one user, which outlive connections, as immutable values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sshgate.access.identity import Certified
from sshgate.errors import LimitReached

# Per user. Revoked ones are kept until they would have expired, or until a new one needs their place.
MOST_TOKENS = 100
# Logouts kept individually per user. Beyond this the oldest is replaced by `Issued.before`, which ends all logins
# issued up to the same moment.
MOST_LOGOUTS = 100


@dataclass(frozen=True, slots=True)
class Shared:
    """The one held session that a link shows. Another session of the same name has another ``id``."""

    sandbox: str
    session: str
    id: str
    types: bool
    """Whether who opens the link may type."""
    proof: str = ""
    """What must stay true of its owner, as ``webshim.credentials.Principal.proof``. The link does not show it."""
    certificate: Certified | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token for programs, or a link to a session, that was issued. Times are seconds since the epoch."""

    id: str
    made: float
    ends: float
    source: str
    """The address that it was requested from."""
    key: str
    """The fingerprint of the key that requested it."""
    revoked: bool = False
    shared: Shared | None = None
    """Set for a link: what it is good for, and that it is no token for programs."""


@dataclass(frozen=True, slots=True)
class Logout:
    """A login by cookie that its user has ended. Times of the login, in seconds since the epoch."""

    made: float
    ends: float


@dataclass(frozen=True, slots=True)
class Issued:
    """The tokens and logouts of one user, by id. Every change returns a new value without expired entries."""

    tokens: Mapping[str, Token] = field(default_factory=dict)
    logouts: Mapping[str, Logout] = field(default_factory=dict)
    before: float = -1.0
    """Logins by cookie that were issued up to this moment (seconds since the epoch) are over."""

    def fresh(self, now: float) -> Issued:
        """Return this without expired entries."""
        return replace(
            self,
            tokens={key: one for key, one in self.tokens.items() if one.ends > now},
            logouts={key: one for key, one in self.logouts.items() if one.ends > now},
        )

    def with_token(self, token: Token, now: float) -> Issued:
        """Add a token. Raises ``LimitReached`` when the user has ``MOST_TOKENS`` that are good."""
        kept = self.fresh(now)
        tokens = dict(kept.tokens)
        while len(tokens) >= MOST_TOKENS:
            soonest = min(tokens.values(), key=lambda one: (not one.revoked, one.ends))
            if not soonest.revoked:
                raise LimitReached(
                    f"you have {MOST_TOKENS} tokens and links: revoke one, or wait {(soonest.ends - now) / 3600:.0f} h "
                    "for the end of the first."
                )
            del tokens[soonest.id]  # what is not known is not good either; see `lost`
        return replace(kept, tokens={**tokens, token.id: token})

    def revoked(self, token: str, now: float) -> Issued:
        """Mark a token as revoked; no effect if there is no such token."""
        kept = self.fresh(now)
        known = kept.tokens.get(token)
        if known is None:
            return kept
        return replace(kept, tokens={**kept.tokens, token: replace(known, revoked=True)})

    def logged_out(self, login: str, logout: Logout, now: float) -> Issued:
        """Record the logout of the login with this id."""
        kept = self.fresh(now)
        logouts, before = {**kept.logouts, login: logout}, kept.before
        while len(logouts) > MOST_LOGOUTS:
            oldest = min(logouts, key=lambda one: logouts[one].made)
            before = max(before, logouts.pop(oldest).made)
        return replace(kept, logouts=logouts, before=before)

    def lost(self, word: str, made: float, *, token: bool) -> bool:
        """Return whether a login was ended, or a token revoked or never issued.

        Signature and expiry are not checked here.

        Args:
            word: the id of the login or token.
            made: when the login was issued, in seconds since the epoch; not used for a token.
            token: ``word`` is a token's id.
        """
        if token:
            known = self.tokens.get(word)
            return known is None or known.revoked
        return word in self.logouts or made <= self.before
