"""embedding-reader, which autofaiss and clip-retrieval read with, reads littune's stores: the real package."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from littune.store.store import EmbeddingStore
from tests.store.test_store import pair_row, write

pytest.importorskip("embedding_reader")

# In a process of its own, as it prints bars of progress and warns of pandas' future.
READ = """
import sys
import numpy as np
from embedding_reader import EmbeddingReader

folder, file_format, out = sys.argv[1:]
more = {"metadata_folder": folder + "/metadata", "meta_columns": ["key", "caption"]}
reader = EmbeddingReader(
    embeddings_folder=folder + "/img_emb", file_format=file_format, **(more if file_format == "parquet_npy" else {})
)
blocks = list(reader(batch_size=4, show_progress=False))
said = {
    name: np.array([value for _, rows in blocks for value in rows.get(name, [])], str) for name in ("key", "caption")
}
np.savez(out, rows=np.concatenate([block for block, _ in blocks]), **said)
"""


def read(folder: Path, file_format: str, out: Path) -> dict[str, np.ndarray]:
    subprocess.run([sys.executable, "-c", READ, str(folder), file_format, str(out)], check=True, capture_output=True)
    return dict(np.load(out))


@pytest.mark.parametrize("file_format", ["npy", "parquet_npy"])
def test_it_reads_the_same_rows_in_the_same_order(tmp_path: Path, file_format: str) -> None:
    folder = tmp_path / "store"
    embeddings = write(folder, [pair_row(n) for n in range(25)], per_shard=2)  # more than ten shards
    found = read(folder, file_format, tmp_path / "found.npz")
    store = EmbeddingStore.open(folder)
    np.testing.assert_array_equal(found["rows"], embeddings.astype(np.float32))
    np.testing.assert_array_equal(found["rows"], store.embeddings())
    if file_format == "parquet_npy":
        assert found["key"].tolist() == store.keys()
        assert found["caption"].tolist() == [texts[0] for texts in store.texts()]
