"""A trained nnU-Net v2 results folder in, one of our bundles out.

nnU-Net keeps what a trained network needs in four places: the channels and labels in
``dataset.json``, the geometry in ``plans.json``, the weights and the mirror axes in
``fold_X/checkpoint_final.pth``, the corrections that cross-validation found in
``crossval_results_folds_…/postprocessing.json``. One module here reads each. Pickles are read for
their tensors and plain values alone; nothing in them is executed, and ``postprocessing.pkl``, which
holds functions, is never opened.
"""

from model_core.checkpoints.nnunet.bundle import Imported, NnunetOptions, import_nnunet

__all__ = ["Imported", "NnunetOptions", "import_nnunet"]
