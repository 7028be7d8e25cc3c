"""A token is believed for its signature by a listed key, and for nothing that it says of itself."""

from __future__ import annotations

import base64
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from service.auth.jwks import SigningKeys
from service.auth.oidc import LEEWAY_SECONDS, OidcVerifier, owner_of
from service.auth.principal import Limits
from service.errors import AuthUnavailableError, UnauthenticatedError
from tests.service.auth.issuer import AUDIENCE, Issuer, SigningKey


def verifier(issuer: Issuer, *, retry: float = 10.0, **options: Any) -> OidcVerifier:
    keys = SigningKeys(
        issuer.url, options.pop("url", None), timeout_seconds=0.5, retry_seconds=retry
    )
    return OidcVerifier(issuer.url, AUDIENCE, keys=keys, **options)


def refuse(issuer: Issuer, token: str) -> None:
    checker = verifier(issuer)
    assert checker.verify(issuer.token()).may("segment")  # so it is the token
    with pytest.raises(UnauthenticatedError):
        checker.verify(token)


def segment_of(content: object) -> str:
    raw = json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_token_of_each_algorithm_lets_a_person_in(algorithm: str) -> None:
    limits = Limits(open_jobs=2)
    with Issuer(SigningKey.make(algorithm, "k")) as issuer:
        person = verifier(issuer, limits=limits).verify(issuer.token())
    assert person.scopes == {"segment"}
    assert person.limits == limits
    assert person.id == owner_of(issuer.url, "jane.doe@hospital.example")


def test_the_owner_is_stable_short_and_tells_no_name() -> None:
    owner = owner_of("https://a.example", "jane")
    assert re.fullmatch(r"oidc-[0-9a-f]{48}", owner)
    assert owner == owner_of("https://a.example", "jane")
    others = {owner_of("https://b.example", "jane"), owner_of("https://a.example", "j")}
    assert len({owner, *others}) == 3


@pytest.mark.parametrize(
    ("claim", "value", "scopes"),
    [
        ("scope", "read metrics openid", {"read", "metrics"}),
        ("scope", "", set()),
        ("scope", None, set()),
        ("scope", 7, set()),
        ("roles", ["admin", 3, "other"], {"admin"}),
        ("scp", "segment", {"segment"}),
    ],
)
def test_scopes_come_from_the_claim_that_is_set(
    issuer: Issuer, claim: str, value: object, scopes: set[str]
) -> None:
    token = issuer.token(**{"scope": None, claim: value})
    assert verifier(issuer, scope_claim=claim).verify(token).scopes == scopes


def test_a_token_for_several_audiences_is_for_us_too(issuer: Issuer) -> None:
    assert verifier(issuer).verify(issuer.token(aud=["other", AUDIENCE]))


@pytest.mark.parametrize("claim", ["exp", "iat", "aud", "iss", "sub"])
def test_a_token_that_leaves_a_claim_out_is_refused(issuer: Issuer, claim: str) -> None:
    refuse(issuer, issuer.token(**{claim: None}))


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("aud", "other"),
        ("aud", ["other"]),
        ("aud", AUDIENCE.upper()),
        ("iss", "https://evil.example"),
        ("exp", 1_000_000_000),
        ("exp", "soon"),
        ("iat", 9_000_000_000),
        ("nbf", 9_000_000_000),
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(issuer: Issuer, claim: str, value: object) -> None:
    refuse(issuer, issuer.token(**{claim: value}))


def test_clocks_may_differ_a_little(issuer: Issuer) -> None:
    now = int(time.time())
    assert verifier(issuer).verify(issuer.token(exp=now - LEEWAY_SECONDS + 10))
    refuse(issuer, issuer.token(exp=now - LEEWAY_SECONDS - 10))


def test_another_persons_signature_is_refused(issuer: Issuer, other_rsa_key: SigningKey) -> None:
    forged = SigningKey("RS256", issuer.keys[0].id, other_rsa_key.private)
    refuse(issuer, issuer.token(forged))


def test_a_changed_token_is_refused(issuer: Issuer) -> None:
    head, _, signature = issuer.token().split(".")
    refuse(issuer, ".".join([head, segment_of(issuer.claims(scope="admin")), signature]))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
def test_a_token_without_a_signature_is_refused(issuer: Issuer, algorithm: str) -> None:
    head = segment_of({"alg": algorithm, "typ": "JWT", "kid": issuer.keys[0].id})
    for signature in ("", issuer.token().split(".")[2]):
        refuse(issuer, f"{head}.{segment_of(issuer.claims())}.{signature}")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_public_key_is_no_secret_to_sign_with(issuer: Issuer, algorithm: str) -> None:
    key = issuer.keys[0]
    head = segment_of({"alg": algorithm, "typ": "JWT", "kid": key.id})
    message = f"{head}.{segment_of(issuer.claims())}"
    signer = jwt.get_algorithm_by_name(algorithm)
    for secret in (key.public_pem, key.public_pem.strip(), json.dumps(key.listed).encode()):
        signature = base64.urlsafe_b64encode(signer.sign(message.encode(), secret))
        refuse(issuer, f"{message}.{signature.rstrip(b'=').decode()}")


def test_a_shared_secret_in_the_key_set_is_not_used(issuer: Issuer) -> None:
    secret = "0" * 64
    shared = {
        "kty": "oct",
        "kid": "shared",
        "k": base64.urlsafe_b64encode(secret.encode()).decode(),
    }
    issuer.key_set = json.dumps({"keys": [issuer.keys[0].listed, shared]}).encode()
    refuse(issuer, jwt.encode(issuer.claims(), secret, "HS256", headers={"kid": "shared"}))


def test_a_key_of_one_algorithm_does_not_check_another(rsa_key: SigningKey) -> None:
    curve = SigningKey.make("ES256", "curve")
    with Issuer(rsa_key, curve) as issuer:
        confused = SigningKey("ES256", rsa_key.id, curve.private)
        refuse(issuer, issuer.token(confused))


def test_keys_that_a_token_brings_along_are_not_looked_at(
    issuer: Issuer, other_rsa_key: SigningKey
) -> None:
    for header in ({"jwk": other_rsa_key.listed}, {"jku": f"{issuer.url}/keys"}, {"x5u": "x"}):
        forged = jwt.encode(
            issuer.claims(), other_rsa_key.private, "RS256",
            headers={"kid": issuer.keys[0].id, **header},
        )  # fmt: skip
        refuse(issuer, forged)


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_key_that_is_too_short_is_refused(rsa_key: SigningKey) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with Issuer(rsa_key, SigningKey("RS256", "weak", weak)) as issuer:
        refuse(issuer, issuer.token(issuer.keys[1]))


def test_a_token_without_a_key_id_is_refused(issuer: Issuer) -> None:
    refuse(issuer, jwt.encode(issuer.claims(), issuer.keys[0].private, "RS256"))


@pytest.mark.parametrize(
    "token", ["", "a", "a.b.c", "..", "é.é.é", "e30.e30.", "." * 500, "W10.W10.W10", "🧠"]
)
def test_what_is_no_token_is_refused_without_asking_the_issuer(issuer: Issuer, token: str) -> None:
    with pytest.raises(UnauthenticatedError):
        verifier(issuer).verify(token)
    assert issuer.fetched == []


def test_keys_are_fetched_with_the_first_token_and_kept(issuer: Issuer) -> None:
    checker = verifier(issuer)
    assert issuer.fetched == []
    for _ in range(5):
        checker.verify(issuer.token())
    assert issuer.fetched == ["/.well-known/openid-configuration", "/keys"]


def test_an_address_of_the_keys_needs_no_discovery(issuer: Issuer) -> None:
    verifier(issuer, url=f"{issuer.url}/keys").verify(issuer.token())
    assert issuer.fetched == ["/keys"]


def test_a_new_key_is_found_and_the_withdrawn_one_no_longer(
    issuer: Issuer, other_rsa_key: SigningKey
) -> None:
    checker = verifier(issuer, retry=0.0)
    old = issuer.token()
    checker.verify(old)
    issuer.keys = [other_rsa_key]
    assert checker.verify(issuer.token()).may("segment")
    with pytest.raises(UnauthenticatedError):
        checker.verify(old)


def test_unknown_key_ids_do_not_flood_the_issuer(issuer: Issuer) -> None:
    checker = verifier(issuer)
    checker.verify(issuer.token())
    before = len(issuer.fetched)
    for number in range(20):
        with pytest.raises(UnauthenticatedError):
            checker.verify(issuer.token(SigningKey("RS256", f"x{number}", issuer.keys[0].private)))
    assert len(issuer.fetched) == before


def test_many_first_tokens_at_once_fetch_the_keys_once(issuer: Issuer) -> None:
    checker, token = verifier(issuer), issuer.token()
    issuer.delay_seconds = 0.05
    with ThreadPoolExecutor(8) as pool:
        people = list(pool.map(checker.verify, [token] * 8))
    assert len({person.id for person in people}) == 1
    assert issuer.fetched == ["/.well-known/openid-configuration", "/keys"]


def test_an_issuer_that_is_away_is_not_the_callers_fault(issuer: Issuer) -> None:
    checker, token = verifier(issuer), issuer.token()
    issuer.stop()
    with pytest.raises(AuthUnavailableError) as refused:
        checker.verify(token)
    assert refused.value.retry_after >= 1


def test_known_keys_outlive_an_issuer_that_goes_away(issuer: Issuer) -> None:
    checker, token = verifier(issuer, retry=0.0), issuer.token()
    checker.verify(token)
    issuer.stop()
    with pytest.raises(AuthUnavailableError):
        checker.verify(issuer.token(SigningKey("RS256", "new", issuer.keys[0].private)))
    assert checker.verify(token).may("segment")


def test_an_issuer_that_hangs_costs_one_timeout_and_not_one_a_token(issuer: Issuer) -> None:
    checker, token = verifier(issuer), issuer.token()
    issuer.delay_seconds = 1.0
    started = time.monotonic()
    for _ in range(10):
        with pytest.raises(AuthUnavailableError):
            checker.verify(token)
    assert time.monotonic() - started < 2.0


def test_an_issuer_that_comes_back_is_asked_again(issuer: Issuer) -> None:
    checker, token = verifier(issuer, retry=0.0), issuer.token()
    issuer.key_set = b"not found"
    with pytest.raises(AuthUnavailableError):
        checker.verify(token)
    issuer.key_set = None
    assert checker.verify(token).may("segment")


@pytest.mark.parametrize(
    "key_set", [b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": [{}]}', b"\xff"]
)
def test_an_answer_that_is_no_key_set_is_the_issuers_fault(issuer: Issuer, key_set: bytes) -> None:
    issuer.key_set = key_set
    with pytest.raises(AuthUnavailableError):
        verifier(issuer).verify(issuer.token())


def test_a_discovery_document_of_another_issuer_is_not_believed(issuer: Issuer) -> None:
    issuer.claimed = "https://evil.example"
    with pytest.raises(AuthUnavailableError):
        verifier(issuer).verify(issuer.token())
    assert "/keys" not in issuer.fetched


def test_keys_in_the_clear_are_not_fetched(issuer: Issuer) -> None:
    issuer.jwks_url = "http://keys.example/"
    with pytest.raises(AuthUnavailableError):
        verifier(issuer).verify(issuer.token())


def test_the_log_has_the_kind_of_reason_and_nothing_of_the_token(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "service.auth"):
        refuse(issuer, issuer.token(aud="other"))
    [record] = caplog.records
    assert record.__dict__["reason"] == "InvalidAudienceError"
    assert "jane" not in str(vars(record))
