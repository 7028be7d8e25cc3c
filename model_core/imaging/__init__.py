"""Images in and out: NIfTI files, grids, studies, and the way to a network's input and back.

NumPy, SciPy and nibabel only; nothing here knows a network.
"""

from model_core.imaging.grid import Grid
from model_core.imaging.nifti import (
    ReadLimits,
    encode_label_map,
    read_label_map,
    read_nifti,
    write_label_map,
    write_nifti,
)
from model_core.imaging.preprocess import Prepared, Preprocessing, prepare, prepare_labels
from model_core.imaging.resample import resample
from model_core.imaging.study import Study, StudyFiles, find_studies, load_study, make_study
from model_core.imaging.volume import Volume

__all__ = [
    "Grid",
    "Prepared",
    "Preprocessing",
    "ReadLimits",
    "Study",
    "StudyFiles",
    "Volume",
    "encode_label_map",
    "find_studies",
    "load_study",
    "make_study",
    "prepare",
    "prepare_labels",
    "read_label_map",
    "read_nifti",
    "resample",
    "write_label_map",
    "write_nifti",
]
