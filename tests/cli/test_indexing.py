"""The verb index, and searching what it made."""

import json
from pathlib import Path

import pytest

from littune.store.store import EmbeddingStore
from tests.apps.search.conftest import Drawn, drawn, write_store
from tests.apps.search.postgres_server import address as address
from tests.test_cli import refused, run


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddingStore:
    monkeypatch.setattr("littune.model.lit.LiT.load", lambda *args, **settings: Drawn())
    return write_store(tmp_path / "store", drawn(100))


def test_an_index_is_made_measured_and_searched(
    store: EmbeddingStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    of_run, out = ["--run", str(tmp_path)], str(tmp_path / "index")
    code, said, _ = run(capsys, "index", str(store.path), *of_run, "--out", out)
    assert code == 0 and said.startswith("hnsw index of 100 rows, ") and "recall@10 1.000" in said
    code, said, _ = run(capsys, "index", str(store.path), *of_run, "--out", out, "--json")
    assert code == 0 and json.loads(said)["new"] is False
    exact = run(capsys, "search", "a query", *of_run, "--store", str(store.path))
    assert exact[1] and run(capsys, "search", "a query", *of_run, "--index", out) == exact


def test_a_database_is_filled_and_searched(
    address: str, store: EmbeddingStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_run, there = ["--run", str(tmp_path)], ["--table", "by_command"]
    code, said, _ = run(capsys, "index", str(store.path), *of_run, "--to", address, *there)
    assert (code, said) == (0, "the table by_command has 100 rows: 100 added, 0 changed, 0 removed\n")
    code, said, _ = run(capsys, "index", str(store.path), *of_run, "--to", address, *there, "--json")
    assert (code, json.loads(said)["added"]) == (0, 0)
    exact = run(capsys, "search", "a query", *of_run, "--store", str(store.path), "--where", "width=3")
    assert run(capsys, "search", "a query", *of_run, "--index", address, *there, "--where", "width=3") == exact
    assert "no table other of littune's" in refused(
        capsys, "search", "a", *of_run, "--index", address, "--table", "other"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "{store}", "--run", "{tmp}"], "index needs either --out DIR or --to"),
        (["index", "{store}", "--run", "{tmp}", "--to", "here"], "--to takes the address of a database"),
        (["index", "{store}", "--run", "{tmp}", "--out", "x", "--to", "postgresql://x"], "either --out DIR or --to"),
        (["index", "nowhere", "--run", "{tmp}", "--out", "{tmp}/i"], "the store nowhere does not exist"),
        (["index", "{store}", "--run", "{tmp}", "--out", "{store}"], "holds other things than an index"),
        (["index", "{store}", "--run", "{tmp}", "--out", "{tmp}/i", "--kind", "ivfpq"], "ivfpq needs at least 10,000"),
        (["search", "a", "--run", "{tmp}"], "there is nothing to search: give --store STORE, or --index DIR"),
        (["search", "a", "--run", "{tmp}", "--index", "nowhere"], "the index nowhere does not exist"),
    ],
)
def test_bad_input_is_one_line(
    store: EmbeddingStore, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [argument.format(store=store.path, tmp=tmp_path) for argument in arguments]
    assert message in refused(capsys, *filled)
