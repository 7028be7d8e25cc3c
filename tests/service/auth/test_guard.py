"""The door over HTTP: who comes in, with what answer those do not, and what it costs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from service.auth.audit import AuditLog
from service.auth.guard import LONGEST_TOKEN, Guard
from service.auth.jwks import SigningKeys
from service.auth.keys import KeyStore
from service.auth.oidc import OidcVerifier, owner_of
from service.auth.principal import Limits
from service.auth.tables import keys
from service.jobs.database import open_database
from tests.service.auth.applications import ROUTES, Door, bearer, wait_until
from tests.service.auth.issuer import AUDIENCE, Issuer


def by_issuer(issuer: Issuer) -> OidcVerifier:
    return OidcVerifier(issuer.url, AUDIENCE, keys=SigningKeys(issuer.url, timeout_seconds=0.5))


def body_of(answer: httpx.Response) -> dict[str, object]:
    content: dict[str, object] = answer.json()
    del content["request_id"]
    return content


def test_a_key_comes_in_by_either_header(entrance: Door, store: KeyStore) -> None:
    key, token = store.create("a")
    client = entrance.guarded(Guard("keys", keys=store))
    for headers in (bearer(token), {"Authorization": f"bearer {token}"}, {"X-API-Key": token}):
        answer = client.get("/jobs", headers=headers)
        assert (answer.status_code, answer.json()) == (200, key.id)


def test_our_header_counts_where_a_proxy_uses_the_other_one(
    entrance: Door, store: KeyStore
) -> None:
    _, token = store.create("a")
    client = entrance.guarded(Guard("keys", keys=store))
    both = {"Authorization": "Basic cHJveHk6eA==", "X-API-Key": token}
    assert client.get("/jobs", headers=both).status_code == 200


def test_whatever_is_wrong_with_a_credential_the_answer_is_the_same(
    entrance: Door, store: KeyStore
) -> None:
    revoked, revoked_token = store.create("a")
    store.revoke(revoked.id)
    expired, expired_token = store.create("b", expires_days=1)
    with store.engine.begin() as connection:
        connection.execute(keys.update().where(keys.c.id == expired.id).values(expires=1))
    _, good = store.create("c")
    unknown = good.replace(good[4:20], "f" * 16)
    wrong = good[:-4] + "AAAA"
    attempts = [
        bearer(revoked_token), bearer(expired_token), bearer(unknown), bearer(wrong),
        bearer("sgm_x"), bearer("a.b.c"), bearer("x" * (LONGEST_TOKEN + 1)), bearer("é"),
        {"X-API-Key": wrong}, {"X-API-Key": ""}, {"Authorization": "Basic eDp5"},
        {"Authorization": good}, {"Authorization": "Bearer"}, {},
    ]  # fmt: skip
    client = entrance.guarded(Guard("keys", keys=store))
    encoded = [{k: v.encode("latin-1") for k, v in headers.items()} for headers in attempts]
    answers = [client.get("/jobs", headers=headers) for headers in encoded]
    assert client.get("/jobs", headers=bearer(good)).status_code == 200
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert len({json.dumps(body_of(answer)) for answer in answers}) == 1
    assert answers[0].json()["type"] == "urn:segmamba:problem:unauthenticated"


@pytest.mark.parametrize(
    ("held", "allowed"),
    [
        ("segment", {"segment", "read"}),
        ("read", {"read"}),
        ("metrics", {"metrics"}),
        ("admin", set(ROUTES)),
    ],
)
def test_a_scope_opens_its_routes_and_no_other(
    entrance: Door, store: KeyStore, held: str, allowed: set[str]
) -> None:
    _, token = store.create("a", scopes=[held])
    client = entrance.guarded(Guard("keys", keys=store))
    answers = {s: client.get(path, headers=bearer(token)) for s, path in ROUTES.items()}
    assert {scope for scope, answer in answers.items() if answer.status_code == 200} == allowed
    for scope, answer in answers.items():
        if scope not in allowed:
            assert answer.status_code == 403
            assert answer.json()["type"] == "urn:segmamba:problem:forbidden"
            assert f"scope {scope}" in answer.json()["detail"]
            assert "www-authenticate" not in answer.headers


def test_off_lets_everybody_in_whatever_they_bring(entrance: Door, store: KeyStore) -> None:
    client = entrance.guarded(Guard("off", keys=store))
    for headers in ({}, bearer("nonsense")):
        for path in ROUTES.values():
            answer = client.get(path, headers=headers)
            assert (answer.status_code, answer.json()) == (200, "anonymous")


def test_too_many_requests_are_told_when_to_come_back(entrance: Door, store: KeyStore) -> None:
    _, token = store.create("a", limits=Limits(rate_per_minute=3))
    _, other = store.create("b", limits=Limits(rate_per_minute=3))
    client = entrance.guarded(Guard("keys", keys=store))
    answers = [client.get("/jobs", headers=bearer(token)) for _ in range(5)]
    assert client.get("/jobs", headers=bearer(other)).status_code == 200
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert 1 <= int(answers[3].headers["retry-after"]) <= 60
    assert answers[3].json()["type"] == "urn:segmamba:problem:rate-limited"


def test_refused_requests_count_too(entrance: Door, store: KeyStore) -> None:
    _, token = store.create("a", scopes=["read"], limits=Limits(rate_per_minute=2))
    client = entrance.guarded(Guard("keys", keys=store))
    answers = [client.get("/segment", headers=bearer(token)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [403, 403, 429]


def test_a_client_that_polls_does_not_cost_a_query_each(entrance: Door, store: KeyStore) -> None:
    _, token = store.create("a")
    statements: list[object] = []
    sa.event.listen(store.engine, "before_cursor_execute", lambda *args: statements.append(args))
    client = entrance.guarded(Guard("keys", keys=store))
    client.get("/jobs", headers=bearer(token))
    first = len(statements)
    for _ in range(20):
        assert client.get("/jobs", headers=bearer(token)).status_code == 200
    assert len(statements) == first
    for _ in range(5):
        assert client.get("/jobs", headers=bearer(token[:-4] + "AAAA")).status_code == 401
    assert len(statements) == first + 1


def test_a_revoked_key_stops_within_the_time(entrance: Door, store: KeyStore) -> None:
    key, token = store.create("a")
    client = entrance.guarded(Guard("keys", keys=store, remember_seconds=0.3))
    assert client.get("/jobs", headers=bearer(token)).status_code == 200
    store.revoke(key.id)
    started = time.monotonic()
    wait_until(lambda: client.get("/jobs", headers=bearer(token)).status_code == 401)
    assert time.monotonic() - started < 2.0


def test_a_database_that_is_away_is_not_the_callers_fault(entrance: Door, tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/jobs.sqlite")  # without the table
    token = f"sgm_{'0' * 16}_{'A' * 43}"
    client = entrance.guarded(Guard("keys", keys=KeyStore(engine)))
    answer = client.get("/jobs", headers=bearer(token))
    engine.dispose()
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:segmamba:problem:auth-unavailable"
    assert int(answer.headers["retry-after"]) >= 1


def test_a_token_of_the_issuer_comes_in(entrance: Door, store: KeyStore, issuer: Issuer) -> None:
    _, key = store.create("a")
    client = entrance.guarded(Guard("oidc", keys=store, oidc=by_issuer(issuer)))
    answer = client.get("/jobs", headers=bearer(issuer.token()))
    assert answer.json() == owner_of(issuer.url, "jane.doe@hospital.example")
    assert client.get("/admin", headers=bearer(issuer.token())).status_code == 403
    for wrong in (issuer.token(aud="other"), key):
        refused = client.get("/jobs", headers=bearer(wrong))
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"


def test_both_kinds_come_in_where_both_are_asked_for(
    entrance: Door, store: KeyStore, issuer: Issuer
) -> None:
    key, token = store.create("a")
    client = entrance.guarded(Guard("keys+oidc", keys=store, oidc=by_issuer(issuer)))
    assert client.get("/jobs", headers=bearer(token)).json() == key.id
    assert client.get("/jobs", headers=bearer(issuer.token())).json().startswith("oidc-")


def test_with_keys_alone_the_issuer_is_not_asked(
    entrance: Door, store: KeyStore, issuer: Issuer
) -> None:
    client = entrance.guarded(Guard("keys", keys=store, oidc=by_issuer(issuer)))
    assert client.get("/jobs", headers=bearer(issuer.token())).status_code == 401
    assert issuer.fetched == []


def test_an_issuer_that_is_away_leaves_keys_in(
    entrance: Door, store: KeyStore, issuer: Issuer
) -> None:
    _, token = store.create("a")
    person = issuer.token()
    issuer.stop()
    client = entrance.guarded(Guard("keys+oidc", keys=store, oidc=by_issuer(issuer)))
    answer = client.get("/jobs", headers=bearer(person))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert client.get("/jobs", headers=bearer(token)).status_code == 200


def test_refusals_are_audited_without_the_credential(
    entrance: Door, store: KeyStore, tmp_path: Path
) -> None:
    key, token = store.create("a", scopes=["read"], limits=Limits(rate_per_minute=2))
    path = tmp_path / "audit.log"
    guard = Guard("keys", keys=store, audit=AuditLog(path, addresses=True))
    client = entrance.guarded(guard)
    client.get("/jobs?name=JANE", headers={**bearer("JANE"), "X-Patient": "JANE"})
    client.get("/jobs", headers=bearer(token))
    client.get("/segment", headers={**bearer(token), "X-Request-ID": "run-8"})
    client.get("/jobs", headers=bearer(token))
    guard.close()
    written = path.read_text()
    found = [json.loads(line) for line in written.splitlines()]
    assert [(line["principal"], line["outcome"]) for line in found] == [
        (None, "unauthenticated"),
        (key.id, "forbidden"),
        (key.id, "rate-limited"),
    ]
    assert {line["act"] for line in found} == {"refused"}
    assert {line["address"] for line in found} == {"127.0.0.1"}
    assert found[1]["request_id"] == "run-8"
    assert "JANE" not in written
    assert token.split("_", 2)[2] not in written


def test_the_description_names_both_ways_in(entrance: Door, store: KeyStore) -> None:
    client = entrance.guarded(Guard("keys", keys=store))
    described = client.get("/openapi.json").json()
    schemes = described["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert schemes["api-key"]["name"] == "X-API-Key"
    assert described["paths"]["/jobs"]["get"]["security"] == [{"bearer": []}, {"api-key": []}]
