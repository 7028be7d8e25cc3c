"""A key works until it is revoked or has expired; the database never holds it."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from model_core.errors import OptionError
from service.auth.keys import DAY_MS, USE_NOTED_MS, KeyStore, hash_secret
from service.auth.principal import Limits
from service.auth.tables import keys
from service.jobs.store import JobStore


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.sqlite"
    shared: str = request.getfixturevalue("postgresql")
    with psycopg.connect(shared) as connection:
        connection.execute("DROP TABLE IF EXISTS segmamba_keys")
    return shared


without_a_database = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
"""For what is decided before any statement: one kind is enough."""


def stored(store: KeyStore) -> dict[str, Any]:
    with store.engine.connect() as connection:
        return dict(connection.execute(sa.select(keys)).mappings().one())


def change(store: KeyStore, **values: int | None) -> None:
    with store.engine.begin() as connection:
        connection.execute(keys.update().values(**values))


def test_a_key_is_found_by_its_token_with_all_that_was_said(store: KeyStore) -> None:
    limits = Limits(rate_per_minute=60, open_jobs=4, storage_mb=1000)
    made, token = store.create(" viewer ", scopes=["segment", "metrics"], limits=limits)
    found = store.find(token)
    assert found == made
    assert (made.label, made.state) == ("viewer", "active")
    assert made.principal.id == made.id
    assert made.principal.scopes == {"segment", "metrics"}
    assert made.principal.limits == limits
    assert store.list()[0].last_used is not None


def test_a_token_has_its_form_and_a_secret_of_256_bits(store: KeyStore) -> None:
    key, token = store.create("a")
    assert re.fullmatch(rf"sgm_{key.id}_[A-Za-z0-9_-]{{43}}", token)  # 43 × 6 bits >= 256
    assert len(key.id) <= 64


def test_the_table_holds_the_hash_and_no_part_of_the_secret(store: KeyStore) -> None:
    _, token = store.create("a")
    secret = token.split("_", 2)[2]
    row = stored(store)
    assert row["hash"] == hashlib.sha256(secret.encode()).hexdigest() == hash_secret(secret)
    assert secret not in str(row)


def test_two_keys_with_one_label_are_two_keys(store: KeyStore) -> None:
    (first, one), (second, two) = store.create("a"), store.create("a")
    assert first.id != second.id
    assert one != two
    assert {key.id for key in store.list()} == {first.id, second.id}


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What goes through the comparison in constant time, which is still the real one."""
    seen: list[tuple[str, str]] = []
    real = hmac.compare_digest

    def compare(stored: str, given: str) -> bool:
        seen.append((stored, given))
        return real(stored, given)

    monkeypatch.setattr("service.auth.keys.hmac.compare_digest", compare)
    return seen


def test_hashes_are_compared_in_constant_time_for_an_unknown_id_too(
    store: KeyStore, compared: list[tuple[str, str]]
) -> None:
    key, token = store.create("a")
    given = hash_secret(token.split("_", 2)[2])
    assert store.find(token) is not None
    assert store.find(token.replace(key.id, "0" * len(key.id))) is None
    assert compared == [(given, given), ("0" * 64, given)]


def test_a_wrong_secret_is_nobody(store: KeyStore) -> None:
    _, token = store.create("a")
    assert store.find(token[:-1] + ("A" if token[-1] != "A" else "B")) is None


@without_a_database
@pytest.mark.parametrize(
    "token", ["", "sgm_", "sgm__", "sgm_0_x", "Bearer sgm_1", "é" * 64, "sgm_" + "0" * 16 + "_\n"]
)
def test_what_is_no_token_does_not_reach_the_database(store: KeyStore, token: str) -> None:
    statements: list[object] = []
    sa.event.listen(store.engine, "before_cursor_execute", lambda *args: statements.append(args))
    assert store.find(token) is None
    assert not statements


def test_a_token_with_something_behind_it_is_nobody(store: KeyStore) -> None:
    _, token = store.create("a")
    assert store.find(token + "\n") is None
    assert store.find(token + "x") is None


def test_a_revoked_key_is_nobody_and_is_revoked_once(store: KeyStore) -> None:
    key, token = store.create("a")
    assert store.revoke(key.id)
    assert store.find(token) is None
    assert not store.revoke(key.id)
    assert not store.revoke("nothing")
    assert store.list()[0].state == "revoked"


def test_a_key_expires_on_its_day(store: KeyStore) -> None:
    key, token = store.create("a", expires_days=3)
    assert key.expires is not None
    assert abs(key.expires - key.created - 3 * DAY_MS) < 1000
    assert store.find(token) is not None
    change(store, expires=key.created - 1)
    assert store.find(token) is None
    assert store.list()[0].state == "expired"


def test_only_a_key_that_is_good_counts_as_one(store: KeyStore) -> None:
    assert not store.any_active()
    key, _ = store.create("a")
    assert store.any_active()
    change(store, expires=key.created - 1)
    assert not store.any_active()
    change(store, expires=None)
    store.revoke(key.id)
    assert not store.any_active()


def test_use_is_noted_once_a_minute(store: KeyStore) -> None:
    key, token = store.create("a")
    change(store, last_used=key.created - USE_NOTED_MS + 10_000)
    store.find(token)
    assert stored(store)["last_used"] == key.created - USE_NOTED_MS + 10_000
    change(store, last_used=key.created - USE_NOTED_MS)
    store.find(token)
    assert stored(store)["last_used"] >= key.created


@without_a_database
@pytest.mark.parametrize("label", ["", "  ", "x" * 81, "a\nb", "\x1b[31m"])
def test_a_label_is_one_short_printable_line(store: KeyStore, label: str) -> None:
    with pytest.raises(OptionError, match="label"):
        store.create(label)


@without_a_database
@pytest.mark.parametrize("scopes", [[], ["write"], ["segment", "root"]])
def test_a_scope_that_does_not_exist_is_refused_by_name(store: KeyStore, scopes: list[str]) -> None:
    with pytest.raises(OptionError, match=scopes[-1] if scopes else "none"):
        store.create("a", scopes=scopes)
    assert not store.list()


def test_the_table_is_made_with_those_of_the_jobs_or_alone_and_twice(engine: sa.Engine) -> None:
    KeyStore(engine).create_table()
    JobStore(engine).create_tables()
    KeyStore(engine).create_table()
    assert {"segmamba_keys", "segmamba_jobs"} <= set(sa.inspect(engine).get_table_names())
