"""What each scope includes, and whose jobs a caller sees."""

from __future__ import annotations

import pytest

from service.auth.principal import ANONYMOUS, SCOPES, Limits, Principal, Scope, known_scopes


def with_scopes(*scopes: Scope) -> Principal:
    return Principal(id="a", scopes=frozenset(scopes))


@pytest.mark.parametrize(
    ("held", "allowed"),
    [
        ("segment", {"segment", "read"}),
        ("read", {"read"}),
        ("metrics", {"metrics"}),
        ("admin", {"segment", "read", "metrics", "admin"}),
    ],
)
def test_a_scope_allows_what_it_includes_and_nothing_else(held: Scope, allowed: set[str]) -> None:
    assert {scope for scope in SCOPES if with_scopes(held).may(scope)} == allowed


def test_without_a_scope_nothing_is_allowed() -> None:
    assert not any(with_scopes().may(scope) for scope in SCOPES)


def test_only_an_admin_sees_the_jobs_of_others() -> None:
    assert with_scopes("segment", "read", "metrics").visible_owner == "a"
    assert with_scopes("admin").visible_owner is None


def test_anonymous_may_everything_without_limits() -> None:
    assert all(ANONYMOUS.may(scope) for scope in SCOPES)
    assert ANONYMOUS.limits == Limits()
    assert ANONYMOUS.visible_owner is None


def test_words_that_are_no_scopes_are_left_out() -> None:
    assert known_scopes(["openid", "read", "Admin", "segment "]) == {"read"}
