"""Where the fork server listens: in the folder for temporary files, if its name is short enough."""

from __future__ import annotations

import os
import shutil
import tempfile
from multiprocessing import process, util
from typing import Final

from model_core.errors import OptionError

__all__ = ["choose_socket_folder"]

_ADDRESS_BYTES: Final = 103
"""The longest path of a socket everywhere: macOS's, four less than Linux's (unix(7))."""
_NAME_BYTES: Final = len("/listener-12345678")
_SHORT: Final = "/tmp"  # noqa: S108  # a folder of our own is made there, readable by us alone


def choose_socket_folder() -> None:
    """Let the sockets of this process's own children lie in /tmp where TMPDIR is too long.

    `multiprocessing` makes one folder for all sockets of a process, below TMPDIR, and fails with
    "AF_UNIX path too long" when the first one is bound. This makes that folder beforehand.

    Raises:
        OptionError: TMPDIR is too long, and /tmp is closed.
    """
    folder = util.get_temp_dir()
    if len(os.fsencode(folder)) + _NAME_BYTES <= _ADDRESS_BYTES:
        return
    try:
        short = tempfile.mkdtemp(prefix="pymp-", dir=_SHORT)
    except OSError as error:
        raise OptionError(
            "TMPDIR",
            expected=f"a path of at most {_ADDRESS_BYTES - _NAME_BYTES - len('/pymp-12345678')} "
            "bytes, as sockets have short names, or a writable /tmp",
            got=f"one that makes {len(os.fsencode(folder))}, and /tmp cannot be written",
            way_out="Set TMPDIR to a folder with a short name.",
        ) from error
    util.Finalize(None, shutil.rmtree, args=(short, True), exitpriority=-100)
    process.current_process()._config["tempdir"] = short  # type: ignore[attr-defined]
