"""Strangers' images are opened in a small process of their own, which may die without harm.

::

    worker (GPU, warm model)                     fork server (NumPy, no torch)
    StudyReader.read ── paths, limits ─────────► child: limits on itself, then decode and align
        │                                            │
        └── Study ◄── checked again ◄── anonymous files: one JSON account, four float32 volumes

What comes back is numbers and a few words, never a pickle. However the child ends (refusing, out of
memory, out of time, crashed), the caller gets a study or an `InputError`.
"""

from service.reading.limits import ReadingLimits
from service.reading.nursery import ServerLostError
from service.reading.reader import Apart, StudyReader, Taken
from service.reading.work import DicomFiles, ObjectsTask

__all__ = [
    "Apart",
    "DicomFiles",
    "ObjectsTask",
    "ReadingLimits",
    "ServerLostError",
    "StudyReader",
    "Taken",
]
