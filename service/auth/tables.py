"""The table of API keys, beside the jobs; times as there.

A key itself is not in it, only its hash. ``label`` is the operator's own word for whoever has it.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from service.jobs.tables import metadata

keys: Final = sa.Table(
    "segmamba_keys",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("label", sa.String(80), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("rate_per_minute", sa.Integer),
    sa.Column("open_jobs", sa.Integer),
    sa.Column("storage_mb", sa.Integer),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger),
    sa.Column("revoked", sa.BigInteger),
    sa.Column("last_used", sa.BigInteger),
)
