"""The tables: jobs, and the workers that are there to run them.

Times are milliseconds since 1970 by the database's clock. Nothing here says who a patient is: file
names, headers and pixels stay out, and ``batch`` is a short token of the caller's choice.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

SCHEMA_VERSION: Final = 1
"""Raised with every change of these tables; docs/upgrade.md tells what to do."""

metadata: Final = sa.MetaData()

jobs: Final = sa.Table(
    "segmamba_jobs",
    metadata,
    # SQLite counts only in a column that is exactly INTEGER
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("id", sa.String(32), nullable=False, unique=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("batch", sa.String(64)),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("upload", sa.String(32)),
    sa.Column("source", sa.String(32)),
    sa.Column("cache_key", sa.String(64)),
    sa.Column("fingerprint", sa.String(64)),
    sa.Column("cached", sa.Boolean, nullable=False, default=False),
    sa.Column("input_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("result_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("handed_back", sa.Integer, nullable=False, default=0),
    sa.Column("worker", sa.String(96)),
    sa.Column("stage", sa.String(16)),
    sa.Column("done", sa.Integer, nullable=False, default=0),
    sa.Column("total", sa.Integer, nullable=False, default=0),
    sa.Column("revision", sa.Integer, nullable=False, default=0),
    sa.Column("crash", sa.String(200)),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("result", sa.JSON(none_as_null=True)),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("started", sa.BigInteger),
    sa.Column("ended", sa.BigInteger),
    sa.Index("segmamba_jobs_queue", "state", "priority", "number"),
    sa.Index("segmamba_jobs_newest", "state", "number"),
    sa.Index("segmamba_jobs_owner", "owner", "number"),
    sa.Index("segmamba_jobs_cache", "cache_key"),
    sa.Index("segmamba_jobs_batch", "batch"),
    sa.Index("segmamba_jobs_upload", "upload"),
    sa.Index("segmamba_jobs_source", "source"),
    sqlite_autoincrement=True,
)

workers: Final = sa.Table(
    "segmamba_workers",
    metadata,
    sa.Column("id", sa.String(96), primary_key=True),
    sa.Column("device", sa.String(32), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("job", sa.String(32)),
    sa.Column("started", sa.BigInteger, nullable=False),
    sa.Column("seen", sa.BigInteger, nullable=False),
)

schema: Final = sa.Table(
    "segmamba_schema", metadata, sa.Column("version", sa.Integer, primary_key=True)
)
