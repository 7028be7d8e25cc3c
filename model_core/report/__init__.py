"""Reports for people: one study, or two time points of one patient, as HTML and PDF.

::

    label map, two contrasts ─► pictures ─┐
    figures, flags, run.json ─► study ────┼─► page (one HTML file) ─► pdf
    two label maps, two T1ce ─► compare ──┘

A report is one file without scripts that asks no server for anything. It holds no name, no path and
nothing from an image's header; the pictures in it are of the patient all the same. No torch, and no
matplotlib: a report is made beside every result of the service.
"""
