"""Databases of each kind, keys in them, and an issuer of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.auth.keys import KeyStore
from service.jobs.database import open_database
from tests.service.auth.applications import Door, door
from tests.service.auth.issuer import Issuer, SigningKey
from tests.service.jobs.postgres import Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server of this test run's own."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgresql(cluster: Cluster) -> str:
    """The URL of a database that tests share."""
    return cluster.new_database()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.sqlite"


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    engine = open_database(url)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: sa.Engine) -> KeyStore:
    store = KeyStore(engine)
    store.create_table()
    return store


@pytest.fixture(scope="session")
def entrance() -> Iterator[Door]:
    with door() as opened:
        yield opened


@pytest.fixture(scope="session")
def rsa_key() -> SigningKey:
    return SigningKey.make("RS256", "first")


@pytest.fixture(scope="session")
def other_rsa_key() -> SigningKey:
    return SigningKey.make("RS256", "second")


@pytest.fixture
def issuer(rsa_key: SigningKey) -> Iterator[Issuer]:
    with Issuer(rsa_key) as issuer:
        yield issuer
