"""Files that are complete or absent: atomic writes, folder locks, checksums.

Every write goes to a temporary name in the same folder, is synced, and is renamed into place, so a
reader (or a run resumed after SIGKILL) never sees half a file.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from littune.base.errors import InputError, LittuneError

_CHUNK = 1 << 20


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create or replace ``path`` with what ``write`` puts into the binary file it is handed.

    Raises:
        LittuneError: the disk is full or the folder cannot be written; ``path`` is left as it was.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with explained_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(aside, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            aside.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Atomically write ``data`` to ``path``."""
    write_atomic(path, lambda file: file.write(data))


def write_json(path: Path, value: object) -> None:
    """Atomically write ``value`` to ``path`` as indented UTF-8 JSON."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in ``path``.

    Raises:
        InputError: the file is missing, is not JSON, or holds no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); it may be damaged: make it anew") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object; it is not a file of littune's")
    return value


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's contents, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_of_file(path: Path) -> str:
    """A cheap mark of a file's contents: its size and the SHA-256 of its first and last megabyte."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(_CHUNK))
        if size > 2 * _CHUNK:
            file.seek(-_CHUNK, os.SEEK_END)
        digest.update(file.read(_CHUNK))
    return digest.hexdigest()


def littune_cache() -> Path:
    """Where littune keeps what it can make again: ``$LITTUNE_CACHE``, or ``~/.cache/littune``."""
    return Path(os.environ.get("LITTUNE_CACHE") or "~/.cache/littune").expanduser()


@contextmanager
def folder_lock(folder: Path, group: str = "") -> Iterator[None]:
    """Hold ``folder`` (made if needed) for this process or its group; the system lets go if the process dies.

    Args:
        folder: what is held.
        group: a name that the processes have in common which hold the folder together; empty to hold it alone.

    Raises:
        LittuneError: another process or group holds it.
    """
    with _lock_file(folder, ".lock") as file:
        try:
            if group:
                _hold_together(file, folder, group)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LittuneError(f"{folder} is in use by another littune process; wait for it or stop it") from error
        yield


@contextmanager
def commit_lock(folder: Path) -> Iterator[None]:
    """Wait until no other of the processes that hold ``folder`` is changing what it records, and keep them off."""
    with _lock_file(folder, ".commit.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def explained_os_errors(path: Path) -> Iterator[None]:
    """Say of an error of the system's in words that ``path`` cannot be written, and why.

    Raises:
        LittuneError: the block raised an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise _as_littune_error(error, path) from error


@contextmanager
def _lock_file(folder: Path, name: str) -> Iterator[TextIO]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / name, "a+")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise _as_littune_error(error, folder) from error
    with file:
        yield file


def _hold_together(file: TextIO, folder: Path, group: str) -> None:
    """Share the lock with processes of the same group; the first of them writes its name into the file."""
    with commit_lock(folder):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            file.seek(0)
            if file.read() != group:
                raise
            return
        file.truncate(0)
        file.write(group)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _as_littune_error(error: OSError, path: Path) -> LittuneError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LittuneError(f"no space left on the disk for {path}; free some and run the same command again")
    return LittuneError(f"cannot write {path}: {error.strerror}")
