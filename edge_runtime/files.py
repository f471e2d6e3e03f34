"""Reading and writing files so that a failure leaves nothing half-written and says what happened."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["check_writable", "read_file", "write_file"]


def read_file(path: str | PathLike[str]) -> bytes:
    """The bytes of the file at `path`.

    Raises:
        HybridgeError: `file-not-found` when there is no readable file.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise HybridgeError(
            ErrorCode.FILE_NOT_FOUND,
            f"file '{path}'",
            received=error.strerror or str(error),
            expected="a readable file",
            fix="check the path",
        ) from error


def check_writable(path: str | PathLike[str], *, overwrite: bool) -> None:
    """Refuses a target that cannot be written, before long work is done for it.

    Raises:
        HybridgeError: `file-exists` when something is there and `overwrite` is false; `file-unwritable` when
            its folder is missing.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise HybridgeError(
            ErrorCode.FILE_EXISTS,
            f"output '{target}'",
            received="a file that exists",
            expected="a new name",
            fix="choose another name, or ask for it to be overwritten (--overwrite)",
        )
    if not target.absolute().parent.is_dir():
        raise _unwritable(target, "its folder does not exist")


def write_file(path: str | PathLike[str], content: bytes, *, overwrite: bool = False) -> None:
    """Writes `content` to a new file beside `path` and renames it, so that `path` is never half-written.

    Raises:
        HybridgeError: `file-exists` or `file-unwritable`; what was there before is then still there.
    """
    target = Path(path)
    check_writable(target, overwrite=overwrite)
    temporary = target.with_name(f".{target.name}.{os.urandom(6).hex()}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(target, error.strerror or str(error)) from error
        raise


def _unwritable(target: Path, received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.FILE_UNWRITABLE,
        f"output '{target}'",
        received=received,
        expected="a file that can be written",
        fix="check the folder, its permissions and the space left",
    )
