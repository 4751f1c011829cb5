"""What a user was given that outlives a connection, and what of it is worth nothing any more. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sshgate.errors import LimitReached

# Of one user, revoked ones among them: each is remembered until it would have ended by itself.
MOST_TOKENS = 100
# Logouts of one user that are remembered one by one; past it all logins before the oldest of them end.
MOST_LOGOUTS = 100


@dataclass(frozen=True, slots=True)
class Token:
    """A word for programs that was signed. Times are seconds since the epoch."""

    id: str
    made: float
    ends: float
    source: str
    """Where it was asked for from."""
    key: str
    """The fingerprint of what it was asked for with."""
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Logout:
    """A login by cookie that its user has ended."""

    made: float
    ends: float


@dataclass(frozen=True, slots=True)
class Issued:
    """Of one user."""

    tokens: Mapping[str, Token] = field(default_factory=dict)
    logouts: Mapping[str, Logout] = field(default_factory=dict)
    before: float = -1.0
    """Logins by cookie up to this moment are over."""

    def fresh(self, now: float) -> Issued:
        """Without what has ended by itself."""
        return replace(
            self,
            tokens={key: one for key, one in self.tokens.items() if one.ends > now},
            logouts={key: one for key, one in self.logouts.items() if one.ends > now},
        )

    def with_token(self, token: Token, now: float) -> Issued:
        """Raises ``LimitReached``."""
        kept = self.fresh(now)
        if len(kept.tokens) >= MOST_TOKENS:
            soonest = min(one.ends for one in kept.tokens.values())
            raise LimitReached(
                f"you have made {MOST_TOKENS} tokens whose time is not over; another can be made in "
                f"{(soonest - now) / 3600:.0f} h."
            )
        return replace(kept, tokens={**kept.tokens, token.id: token})

    def revoked(self, token: str, now: float) -> Issued:
        """Unchanged where there is no such token."""
        kept = self.fresh(now)
        known = kept.tokens.get(token)
        if known is None:
            return kept
        return replace(kept, tokens={**kept.tokens, token: replace(known, revoked=True)})

    def logged_out(self, login: str, logout: Logout, now: float) -> Issued:
        kept = self.fresh(now)
        logouts, before = {**kept.logouts, login: logout}, kept.before
        while len(logouts) > MOST_LOGOUTS:
            oldest = min(logouts, key=lambda one: logouts[one].made)
            before = max(before, logouts.pop(oldest).made)
        return replace(kept, logouts=logouts, before=before)

    def lost(self, word: str, made: float, *, token: bool) -> bool:
        """Whether a login or token is worth nothing any more, for all that its signature and its time say."""
        if token:
            known = self.tokens.get(word)
            return known is not None and known.revoked
        return word in self.logouts or made <= self.before
