"""What a caller waits for must not grow with the jobs that have ended."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.jobs.engine import JobEngine
from service.jobs.records import NewJob
from service.jobs.tables import jobs


def test_the_estimate_takes_the_newest_jobs_and_sorts_no_others(tmp_path: Any) -> None:
    engine = JobEngine(f"sqlite:///{tmp_path}/jobs.sqlite")
    for seconds in (5, 1, 3):
        job = engine.submit(NewJob(owner="me", spec={})).job
        with engine.database.begin() as connection:
            ended = {"state": "succeeded", "started": 0, "ended": 1000 * seconds}
            connection.execute(jobs.update().where(jobs.c.id == job.id).values(**ended))
    asked: list[tuple[str, Any]] = []
    sa.event.listen(
        engine.database,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, values, *_: asked.append((statement, values)),
    )
    assert engine.store.mean_seconds(2) == 2.0
    ((statement, values),) = asked
    with engine.database.connect() as connection:
        steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    engine.close()
    plan = " ".join(step[-1] for step in steps)
    assert "segmamba_jobs_newest" in plan
    assert "TEMP B-TREE" not in plan


def test_tables_of_an_earlier_release_get_the_indexes_that_they_lack(url: str) -> None:
    engine = JobEngine(url)
    index = next(one for one in jobs.indexes if one.name == "segmamba_jobs_newest")
    with engine.database.begin() as connection:
        index.drop(connection)
    engine.close()
    again = JobEngine(url)
    found = {one["name"] for one in sa.inspect(again.database).get_indexes("segmamba_jobs")}
    again.close()
    assert {one.name for one in jobs.indexes} <= found
