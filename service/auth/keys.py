"""API keys: ``sgm_<id>_<secret>``, made once, kept as a hash.

The hash is plain SHA-256: a secret of 256 random bits cannot be guessed, so a slow or salted hash,
which protects what people think up, would protect nothing more and cost every request.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import sqlalchemy as sa

from model_core.errors import OptionError
from service.auth.principal import SCOPES, Limits, Principal, Scope, known_scopes
from service.auth.tables import keys
from service.jobs.database import now_ms

logger = logging.getLogger("service.auth")

PREFIX: Final = "sgm_"
DAY_MS: Final = 86_400_000
USE_NOTED_MS: Final = 60_000
"""`Key.last_used` may be so old: one write a minute, however often a client polls."""
LONGEST_LABEL: Final = 80
_SECRET_BYTES: Final = 32
_ID_BYTES: Final = 8
_TOKEN: Final = re.compile(rf"{PREFIX}([0-9a-f]{{{2 * _ID_BYTES}}})_([A-Za-z0-9_-]{{43}})")
_NO_HASH: Final = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key as the table has it, without its hash; times in milliseconds since 1970."""

    id: str
    label: str
    scopes: frozenset[Scope]
    limits: Limits
    state: Literal["active", "expired", "revoked"]
    """At the moment when it was read."""
    created: int
    expires: int | None
    revoked: int | None
    last_used: int | None
    """To the minute."""

    @property
    def principal(self) -> Principal:
        """Whom the key lets in."""
        return Principal(id=self.id, scopes=self.scopes, limits=self.limits)


class KeyStore:
    """The keys of one database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._now = now_ms(engine)

    def create_table(self) -> None:
        """Make the table if it is missing."""
        with self.engine.begin() as connection:
            if self.engine.dialect.name == "postgresql":  # as JobStore.create_tables does
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(731946)"))
            keys.create(connection, checkfirst=True)

    def create(
        self,
        label: str,
        *,
        scopes: Collection[str] = ("segment",),
        expires_days: int | None = None,
        limits: Limits | None = None,
    ) -> tuple[Key, str]:
        """Make a key; gives it and the token, which nobody can tell again.

        Raises:
            OptionError: no label or a long one, no scope or one that does not exist.
        """
        key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
        limits = limits or Limits()
        values = {
            "id": key_id,
            "label": _checked_label(label),
            "hash": hash_secret(secret),
            "scopes": _checked_scopes(scopes),
            "rate_per_minute": limits.rate_per_minute,
            "open_jobs": limits.open_jobs,
            "storage_mb": limits.storage_mb,
            "created": self._now,
            "expires": None if expires_days is None else self._now + expires_days * DAY_MS,
        }
        with self.engine.begin() as connection:
            connection.execute(keys.insert().values(**values))
        [key] = self._select(keys.c.id == key_id)
        return key, f"{PREFIX}{key_id}_{secret}"

    def list(self) -> Sequence[Key]:
        """All keys, the oldest first; those that are no longer good, too."""
        return self._select()

    def any_active(self) -> bool:
        """Whether anybody could come in with a key now."""
        return any(key.state == "active" for key in self._select(keys.c.revoked.is_(None)))

    def revoke(self, key_id: str) -> bool:
        """Let a key be good for nothing from now on; whether there was one that was not yet."""
        wanted = (keys.c.id == key_id, keys.c.revoked.is_(None))
        with self.engine.begin() as connection:
            changed = connection.execute(keys.update().where(*wanted).values(revoked=self._now))
        return changed.rowcount > 0

    def find(self, token: str) -> Key | None:
        """The key that a token is, if it is good; whatever is wrong with it, the answer is None."""
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            return None
        key_id, secret = parts.groups()
        query = sa.select(keys, self._now.label("now")).where(keys.c.id == key_id)
        with self.engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        # compared for an id that does not exist too: it takes as long
        same = hmac.compare_digest(row["hash"] if row else _NO_HASH, hash_secret(secret))
        if row is None or not same:
            return None
        key = _key(row)
        if key.state != "active":
            return None
        self._note_use(row)
        return key

    def _select(self, *conditions: sa.ColumnElement[bool]) -> Sequence[Key]:
        query = sa.select(keys, self._now.label("now")).where(*conditions)
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(keys.c.created, keys.c.id)).mappings()
            return [_key(row) for row in rows]

    def _note_use(self, row: sa.RowMapping) -> None:
        last_used = row["last_used"]
        if last_used is not None and row["now"] - last_used < USE_NOTED_MS:
            return
        unchanged = (keys.c.id == row["id"], keys.c.last_used.is_not_distinct_from(last_used))
        try:
            with self.engine.begin() as connection:
                connection.execute(keys.update().where(*unchanged).values(last_used=self._now))
        except sa.exc.OperationalError as error:  # a good key is good without the note
            logger.warning("key use not noted", extra={"exception": type(error).__name__})


def hash_secret(secret: str) -> str:
    """What the table keeps of a secret."""
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def _checked_label(label: str) -> str:
    word = label.strip()
    if word and len(word) <= LONGEST_LABEL and word.isprintable():
        return word
    raise OptionError(
        "label",
        expected=f"1 to {LONGEST_LABEL} printable characters",
        got=f"{len(word)} characters",
        way_out="Name whoever gets the key: a machine or a group, never a patient.",
    )


def _checked_scopes(scopes: Collection[str]) -> Sequence[Scope]:
    known = known_scopes(scopes)
    unknown = set(scopes) - known
    if known and not unknown:
        return sorted(known)
    raise OptionError(
        "scopes",
        expected=f"one or more of {', '.join(SCOPES)}",
        got=", ".join(sorted(unknown)) or "none",
        way_out="segment is for submitting and reading one's own jobs.",
    )


def _key(row: sa.RowMapping) -> Key:
    expired = row["expires"] is not None and row["expires"] <= row["now"]
    return Key(
        state="revoked" if row["revoked"] is not None else "expired" if expired else "active",
        scopes=known_scopes(row["scopes"]),
        limits=Limits(
            rate_per_minute=row["rate_per_minute"],
            open_jobs=row["open_jobs"],
            storage_mb=row["storage_mb"],
        ),
        **{
            name: row[name]
            for name in ("id", "label", "created", "expires", "revoked", "last_used")
        },
    )
