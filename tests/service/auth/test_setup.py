"""The settings become a guarded application, or one line that says what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from model_core.errors import OptionError
from service.auth.headers import add_security_headers
from service.auth.keys import KeyStore
from service.auth.settings import AuthSettings
from service.auth.setup import make_guard
from tests.service.auth.applications import bare_application, bearer, served
from tests.service.auth.issuer import AUDIENCE, Issuer


def test_an_application_is_guarded_as_the_settings_say(
    engine: sa.Engine, store: KeyStore, tmp_path: Path
) -> None:
    key, token = store.create("a")
    settings = AuthSettings(
        auth="keys", audit_log=tmp_path / "audit.log", cors_origins="https://viewer.example"
    )
    app = bare_application()
    app.state.guard = guard = make_guard(settings, host="127.0.0.1", engine=engine)
    add_security_headers(app, tls_in_front=settings.tls_in_front, origins=settings.origins)
    with served(app) as client:
        refused = client.get("/jobs", headers={"Origin": "https://viewer.example"})
        assert client.get("/jobs", headers=bearer(token)).json() == key.id
    guard.close()
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.headers["x-frame-options"] == "DENY"
    assert refused.headers["access-control-allow-origin"] == "https://viewer.example"
    assert '"unauthenticated"' in (tmp_path / "audit.log").read_text()


def test_on_loopback_nobody_is_asked_by_default(engine: sa.Engine) -> None:
    assert make_guard(AuthSettings(), host="127.0.0.1", engine=engine).mode == "off"


def test_elsewhere_a_key_has_to_be_there_first(engine: sa.Engine) -> None:
    with pytest.raises(OptionError, match="segmamba keys add"):
        make_guard(AuthSettings(), host="0.0.0.0", engine=engine)
    KeyStore(engine).create("a")
    assert make_guard(AuthSettings(), host="0.0.0.0", engine=engine).mode == "keys"


def test_an_open_door_elsewhere_has_to_be_meant(engine: sa.Engine) -> None:
    with pytest.raises(OptionError, match="ALLOW_UNAUTHENTICATED"):
        make_guard(AuthSettings(auth="off"), host="0.0.0.0", engine=engine)
    meant = AuthSettings(auth="off", allow_unauthenticated=True)
    assert make_guard(meant, host="0.0.0.0", engine=engine).mode == "off"


@pytest.mark.parametrize("missing", ["oidc_issuer", "oidc_audience"])
def test_an_issuer_needs_its_settings(engine: sa.Engine, missing: str) -> None:
    given = {"oidc_issuer": "https://login.example", "oidc_audience": "segmamba", missing: None}
    with pytest.raises(OptionError, match=f"SEGMAMBA_{missing.upper()}"):
        make_guard(AuthSettings(auth="oidc", **given), host="0.0.0.0", engine=engine)


def test_an_issuer_of_the_settings_is_asked(engine: sa.Engine, issuer: Issuer) -> None:
    settings = AuthSettings(
        auth="oidc", oidc_issuer=issuer.url, oidc_audience=AUDIENCE, oidc_rate_per_minute=1
    )
    app = bare_application()
    app.state.guard = make_guard(settings, host="0.0.0.0", engine=engine)
    with served(app) as client:
        answers = [client.get("/jobs", headers=bearer(issuer.token())) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]


def test_without_the_library_of_the_issuer_the_rest_works_and_oidc_says_what_to_install(
    tmp_path: Path,
) -> None:
    script = f"""
import sys
sys.modules["jwt"] = None  # what import finds where it is not installed
from service.auth.settings import AuthSettings
from service.auth.setup import make_guard
from service.jobs.database import open_database
engine = open_database("sqlite:///{tmp_path}/jobs.sqlite")
assert make_guard(AuthSettings(), host="localhost", engine=engine).mode == "off"
try:
    make_guard(AuthSettings(auth="oidc"), host="localhost", engine=engine)
except Exception as error:
    sys.exit(0 if "segmamba-service[oidc]" in str(error) else repr(error))
sys.exit("no error")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
