"""Hosts lose their power and cables break; every study that was taken is done, and counted once.

The site is two APIs, three workers, PostgreSQL and S3, each on a host of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_core.imaging.nifti import read_label_map
from service.jobs.blobs import archive_key, result_key
from service.jobs.tables import jobs
from tests.scale.callers import Caller, Crowd, Study
from tests.scale.network import Host, hindrance
from tests.scale.site import PATIENCE, SILENCE, Site, running_site
from tests.service.fakes import wait_until
from tests.service.jobs.postgres import find_server
from tests.service.servers import head_images

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHORT = [Study(name=f"short {n}", images=head_images(n), fields={}) for n in range(3)]
LONG = Study(
    name="long",
    images=head_images(9, shape=(56, 52, 48)),
    fields={"priority": "high", "tta": "full"},
)
"""Seconds of work, so that it can be hit in its middle; it comes before all that waits."""
CROWD = 24
RESTART_SECONDS = 2.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if (why := hindrance()) is not None:
        pytest.skip(why)
    if find_server() is None:
        pytest.skip("PostgreSQL is not installed (make servers)")
    with running_site(tmp_path) as site:
        yield site


def test_hosts_die_and_cables_break_and_every_study_is_done_once(site: Site) -> None:
    site.wait_ready()
    dying, staying = site.apis
    with Caller([staying]) as caller:
        accepted = {caller.submit(study): study for study in (*SHORT, LONG)}
        site.wait_for(*accepted)
        undisturbed = {study.name: caller.label_map(job) for job, study in accepted.items()}
        crowd = Crowd(site.caller, [dying, staying], SHORT, count=CROWD, pause=1.0)

        lost = caller.submit(LONG)
        site.caught(lost).lose_power()
        late = caller.submit(LONG)
        zombie = site.caught(late)
        zombie.cut()
        site.wait_for(late, lost)
        site.apis[dying].lose_power()
        zombie.mend()
        wait_until(lambda: site.store.writings(result_key(late, 1)) > 0, PATIENCE)
        _trouble_the_database(site)

        crowd.wait()
        accepted |= crowd.accepted | {lost: LONG, late: LONG}
        accepted |= dict.fromkeys(_done_by(zombie, site, caller), SHORT[0])
        site.wait_for(*accepted)
        for job, study in accepted.items():
            assert caller.label_map(job) == undisturbed[study.name]
    _each_is_there_once(site, set(accepted))
    _was_fenced(site, late, zombie)
    _nothing_lies_about(site, abandoned=crowd.unanswered)
    assert len(set(undisturbed.values())) == len(SHORT) + 1
    for label_map in undisturbed.values():
        assert read_label_map(label_map, argument="result")[0].any()


def _trouble_the_database(site: Site) -> None:
    """It crashes and comes back; then nobody reaches it for longer than a worker may be silent."""
    site.database.stop("immediate")
    time.sleep(RESTART_SECONDS)
    site.database.start()
    time.sleep(RESTART_SECONDS)
    site.database.host.cut()
    time.sleep(SILENCE + 2)
    site.database.host.mend()


def _done_by(host: Host, site: Site, caller: Caller) -> list[str]:
    """Jobs that are submitted one after the other until this host has done one of them."""
    sent: list[str] = []
    while not sent or site.job(sent[-1]).worker != host.name:
        assert len(sent) < 50, f"{host.name} takes no more jobs"
        sent.append(caller.submit(SHORT[0]))
        site.wait_for(sent[-1])
    return sent


def _each_is_there_once(site: Site, accepted: set[str]) -> None:
    states = dict(site.rows(jobs.c.id, jobs.c.state))
    assert set(states) == accepted, "none was lost, none was made twice"
    assert set(states.values()) == {"succeeded"}
    wait_until(lambda: site.counted() >= len(accepted))
    assert site.counted() == len(accepted), "no job counts twice"


def _was_fenced(site: Site, job_id: str, zombie: Host) -> None:
    """The result of the host that was cut off came, and changed nothing."""
    job = site.job(job_id)
    assert job.worker != zombie.name
    assert job.attempts > 1
    assert job.result["key"] == result_key(job_id, job.attempts)
    assert site.store.writings(result_key(job_id, 1)) > 0


def _nothing_lies_about(site: Site, *, abandoned: int) -> None:
    """The storage holds the results that count, and nothing else.

    But for the images of uploads that broke off with their API: those go after an hour.
    """
    wanted = {
        make(job_id, attempts)
        for job_id, attempts in site.rows(jobs.c.id, jobs.c.attempts)
        for make in (result_key, archive_key)
    }

    def uploads() -> set[str]:
        return {key.split("/")[1] for key in site.store.keys() - wanted}

    wait_until(lambda: len(uploads()) <= abandoned, PATIENCE)
    assert wanted <= site.store.keys()
    assert all(key.startswith("inputs/") for key in site.store.keys() - wanted)
    assert not uploads() & {name for (name,) in site.rows(jobs.c.upload)}
