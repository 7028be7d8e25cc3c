"""From what a hospital hands over to what it gets back: images, preparation, answer, objects.

::

    NIfTI ─► images_of_nifti ─┐                                     ┌─► label map (NIfTI)
    DICOM ─► images_of_dicom ─┴─► Images ─► prepare_study ─► answer ┼─► figures, flags, run.json
                                                                    └─► SEG and SR (DICOM)

The command line and the service both go this way, so that they give the same.

The modules are imported one by one: who serves files needs no SciPy.
"""
