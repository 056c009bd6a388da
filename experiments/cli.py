"""What all entry points share: a user's mistake ends in a line or two and a non-zero exit status, not in a traceback."""

import errno
import os
import sys
from collections.abc import Callable

from absl import flags

from kipjax import checks

__all__ = ["EXIT_DIVERGED", "EXIT_INPUT", "EXIT_SYSTEM", "run"]

EXIT_INPUT = 2
EXIT_DIVERGED = 3
EXIT_SYSTEM = 4

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and run again with --resume",
    errno.EACCES: "permission denied; choose a folder that you may write to",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another path",
    errno.ENOENT: "no such file or folder",
}


def run(main: Callable[[], None]) -> None:
    """Parses the command line, calls ``main()`` and exits.

    Exit status: 0 when ``main`` returned; 2 for a wrong flag, argument or missing input; 3 for a computation that left
    the finite numbers; 4 for a full disk, a folder without permission and the like; 130 when interrupted. Anything else
    is a defect of the program and keeps its traceback.
    """
    try:
        _parse(sys.argv)
        main()
    except checks.InputError as error:
        _exit(EXIT_INPUT, str(error))
    except checks.NumericalError as error:
        _exit(EXIT_DIVERGED, str(error))
    except OSError as error:
        if error.errno not in _ADVICE:
            raise
        where = error.filename or os.strerror(error.errno)
        _exit(EXIT_SYSTEM, f"{where}: {_ADVICE[error.errno]}")
    except KeyboardInterrupt:
        _exit(130, "interrupted; the last checkpoint is kept, go on with --resume")


def _parse(argv):
    """Absl's parsing, with errors inside a config file or an override reported like any other wrong flag."""
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, FileNotFoundError, ImportError) as error:
        text = " ".join(str(error).strip("'\"").split())
        raise checks.InputError(f"{os.path.basename(argv[0])}: {text}; --help lists the flags") from error
    checks.require(len(rest) == 1, os.path.basename(argv[0]), f"unknown argument {rest[1:2]}; --help lists the flags")


def _exit(status, text):
    print(f"error: {text}", file=sys.stderr)
    sys.exit(status)
