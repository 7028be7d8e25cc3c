"""Every error this project raises on purpose, as one tree.

::

    SegMambaError
    ├── InputError            what the caller handed over is wrong; names argument and way out
    │   ├── ImageError        one image file or array: header, dtype, geometry, values
    │   ├── StudyError        four images that do not make a study
    │   ├── OptionError       an option or setting outside its allowed values
    │   └── MemoryLimitError  a run that would need more memory than it may use
    ├── ShapeError            a tensor that a network or kernel cannot take
    ├── CheckpointError       weights that do not fit the network they claim to be
    │   └── BundleError       a model bundle that is incomplete, altered or of an unknown version
    ├── BackendError          a scan backend that was asked for and cannot run here
    │   └── KernelMemoryError a kernel that found no memory for its scratch space
    ├── NumericalError        NaN or infinity where a finite number was promised
    └── Cancelled             the caller asked to stop; nothing was written

The message of an `InputError` always has four parts: the argument, what was expected, what came,
and what to do about it. They are kept as attributes so that HTTP and the command line can show
them in their own shape. No message carries a file path or anything from inside a patient's header.
"""

from __future__ import annotations


class SegMambaError(Exception):
    """Base of the tree; catch this to catch everything that is not a bug."""


class InputError(SegMambaError):
    """The caller's input is wrong.

    Args:
        argument: the name of the field, option or parameter at fault, e.g. ``"t1ce"``.
        expected: what would have been accepted.
        got: what came instead.
        way_out: what the caller can do about it.
    """

    def __init__(self, argument: str, *, expected: str, got: str, way_out: str) -> None:
        super().__init__(f"{argument}: expected {expected}, got {got}. {way_out}")
        self.argument = argument
        self.expected = expected
        self.got = got
        self.way_out = way_out

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip between processes (keyword-only arguments defeat the default)."""
        return _rebuild, (type(self), self.argument, self.expected, self.got, self.way_out)


class ImageError(InputError):
    """One image is unusable: header, dtype, geometry or values."""


class StudyError(InputError):
    """The images do not make one study."""


class OptionError(InputError):
    """An option or setting is outside its allowed values."""


class MemoryLimitError(InputError):
    """A run would need more memory than it may use; it was refused before it began."""


class ShapeError(SegMambaError):
    """A tensor has a shape that the network or kernel cannot take; the message states the rule."""


class CheckpointError(SegMambaError):
    """Weights do not fit the network they claim to be; the message names the tensor."""


class BundleError(CheckpointError):
    """A model bundle is incomplete, altered, or of a version this release does not know."""


class BackendError(SegMambaError):
    """A scan backend was asked for by name and cannot run here."""


class KernelMemoryError(BackendError):
    """A kernel found no memory for its scratch space."""


class NumericalError(SegMambaError):
    """A result holds NaN or infinity; it must never become a label map."""


class Cancelled(SegMambaError):
    """The caller asked to stop. Nothing was written."""


def _rebuild(
    kind: type[InputError], argument: str, expected: str, got: str, way_out: str
) -> InputError:
    return kind(argument, expected=expected, got=got, way_out=way_out)
