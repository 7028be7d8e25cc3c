"""Jobs that outlive the process: a table of what was asked, an engine that hands it to workers.

::

    API process                        database (SQLite file | PostgreSQL)            worker process
    JobEngine.submit ──────────────► segmamba_jobs + the engine's queue ──claim──► Executor ─► work
    JobEngine.get / list / cancel ─► segmamba_jobs ◄──── attempt, progress, outcome ────┘
                                     segmamba_workers ◄── heartbeat; the dead are reaped

The table is what callers see; DBOS, a kept library, decides who runs what, and hands a job on when
its worker dies. Every change of a job is one guarded UPDATE that names the attempt it belongs to,
so a worker that was thought dead and comes back changes nothing (*fencing*).
"""
