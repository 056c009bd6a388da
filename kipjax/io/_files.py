"""Writing a file so that it is either wholly there or not there at all, and saying in one line why it could not be."""

import contextlib
import errno
import os
import secrets
from collections.abc import Callable
from typing import BinaryIO

from kipjax.checks import InputError

__all__ = ["atomic_write", "one_line", "path_error"]

_ELSEWHERE = "choose a folder that you may write to"
_FULL = "free some space or choose a folder on another disk"

_REASONS = {
    errno.ENOSPC: ("the disk is full", _FULL),
    errno.EDQUOT: ("the disk quota is used up", _FULL),
    errno.EFBIG: ("the file would be larger than the limit set for files", "raise the limit (ulimit -f)"),
    errno.EACCES: ("permission denied", _ELSEWHERE),
    errno.EPERM: ("permission denied", _ELSEWHERE),
    errno.EROFS: ("the file system is read-only", _ELSEWHERE),
    errno.ENOENT: ("its folder does not exist", "create the folder first (mkdir -p)"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "correct the path"),
    errno.EEXIST: ("a file of that name is in the way", "remove it or choose another path"),
    errno.EISDIR: ("it is a folder", "give the path of a file"),
}


def path_error(where: str, action: str, path: str | os.PathLike, error: OSError) -> InputError:
    """The one-line ``InputError`` for a failed file operation: ``where: cannot ACTION PATH: reason; remedy``."""
    missing = action == "read" and error.errno == errno.ENOENT
    known = ("no such file", "check the path") if missing else _REASONS.get(error.errno or 0)
    reason, remedy = known or (error.strerror or one_line(error), "check the path and its file system")
    return InputError(f"{where}: cannot {action} {os.fspath(path)}: {reason}; {remedy}")


def one_line(error: BaseException, limit: int = 160) -> str:
    """The first ``limit`` characters of an error's text, without line breaks; its type where it has no text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def atomic_write(where: str, path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Lets ``write(file)`` fill a new file, then puts it in the place of ``path`` in one operation.

    The bytes go to a hidden file in the same folder, which is flushed to the disk and renamed. Whatever goes wrong,
    the hidden file is removed and what was at ``path`` before stays as it was. A symbolic link is followed.

    Raises:
      InputError: the operating system refused; the text has the path, the reason and a remedy.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        if os.path.isdir(target):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise path_error(where, "write", path, error) from error
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Makes a rename survive a power cut; a file system that cannot do that is no reason to fail."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
