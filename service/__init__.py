"""The HTTP service: take studies, keep them safe as jobs, segment them, answer with label maps.

Two kinds of processes, with a database and a folder between them:

- the API: `app` builds it, `routes` and `answers` speak, `uploads`, `negotiation` and `study_jobs`
  read what the caller sent and wants, `state` holds what is open, `housekeeping` tidies up. It
  opens no image and loads no torch.
- workers: `worker` takes jobs and computes, `reading` opens images in a process with limits.

`jobs` is what lies between them, `auth` says who may call, `supervisor` runs all of it on one
machine, `client` is the caller's side. `errors` turns every exception into one JSON shape;
`metrics` and `observability` tell the operator what happened without a word about the patient.
"""
