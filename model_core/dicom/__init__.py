"""DICOM at the border: files in, series and volumes; label maps out, standard objects.

World frames: DICOM says LPS+ millimetres (PS3.3, C.7.6.2), this project RAS+ (see
`model_core.imaging.grid`). They are turned into each other here and nowhere else.
"""
