"""Rows of several stores: numbered through, centred each in its way, texts counted once."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from littune.base.errors import InputError, MismatchError
from littune.config import StoreChoice
from littune.store.store import EmbeddingStore
from littune.tuning.data.corpus import image_reference, load_corpus, load_images
from tests.tuning.conftest import MakeStore


def choice(store: EmbeddingStore, **more: object) -> StoreChoice:
    return StoreChoice(path=store.path, **more)


def test_rows_weights_and_distinct_texts(make_store: MakeStore) -> None:
    first, second = make_store("a", num_images=10), make_store("b", num_images=5, seed=1)
    corpus = load_corpus([choice(first), choice(second, weight=3.0, fields=("keywords",))])
    assert corpus.row_image.tolist() == [n // 2 for n in range(20)] + [10, 11, 12, 13, 14]
    assert corpus.row_weight.tolist() == [1.0] * 20 + [3.0] * 5
    assert len(set(corpus.texts)) == len(corpus.texts) == 10 + 9 + 5  # "something" stands for images 0 and 5
    assert corpus.texts[corpus.row_text[-1]] == "keyword 4"


def test_images_lie_around_one_center_and_prototypes_around_another(make_store: MakeStore) -> None:
    a, b = make_store("a"), make_store("b", num_images=7, seed=1)
    prototypes = make_store("p", num_images=9, seed=2, kind="prototypes")
    stored = load_images([choice(a), choice(prototypes), choice(b)])
    images = np.concatenate([a.embeddings(), b.embeddings()]).astype(np.float64)
    torch.testing.assert_close(stored.image_center, torch.from_numpy(images.mean(axis=0)).float())
    own = prototypes.embeddings().astype(np.float32)
    numbers = np.array([50, 3, 42])  # of b, a and the prototypes, in no order
    rows = np.stack([images[41] - images.mean(0), images[3] - images.mean(0), own[2] - own.mean(0)])
    torch.testing.assert_close(stored.rows(numbers, 0), torch.from_numpy(rows).float(), rtol=1e-5, atol=1e-6)


def test_centers_that_are_asked_for(make_store: MakeStore) -> None:
    prototypes, photos = make_store("p", kind="prototypes"), make_store("a", seed=1)
    assert not load_images([choice(prototypes)]).image_center.any()
    assert not load_images([choice(photos)], center="none").image_center.any()
    on = load_images([choice(prototypes)], center_on=photos).image_center
    torch.testing.assert_close(on, torch.from_numpy(photos.embeddings().astype(np.float64).mean(0)).float())


def test_images_say_more_of_the_tower_than_prototypes(make_store: MakeStore) -> None:
    prototypes, photos = make_store("p", kind="prototypes"), make_store("a")
    assert image_reference([prototypes, photos]).identity.preprocess == "p"
    assert image_reference([prototypes]).identity.preprocess == ""


def test_stores_that_do_not_go_together(make_store: MakeStore) -> None:
    a, other = make_store("a"), make_store("b", weights="v" * 64)
    with pytest.raises(MismatchError, match="do not train together: other weights"):
        load_images([choice(a), choice(other)])
    with pytest.raises(InputError, match=r"no text in synonyms; .* \(caption, captions, keywords\)"):
        load_corpus([choice(a, fields=("synonyms",))])


def foreign(store: EmbeddingStore) -> EmbeddingStore:
    """The same rows, of which nothing tells the tower."""
    (store.path / "manifest.json").unlink()
    return EmbeddingStore.open(store.path, allow_foreign=True)


def test_a_foreign_store_gives_the_same_rows_and_has_to_be_admitted(make_store: MakeStore) -> None:
    own = make_store("a")
    corpus, images = load_corpus([choice(own)]), load_images([choice(own)])
    store = foreign(own)
    for load in (load_corpus, load_images):
        with pytest.raises(InputError, match="is a foreign store: .* admit it with --allow-foreign"):
            load([choice(store)])
    admitted = load_images([choice(store)], allow_foreign=True)
    assert load_corpus([choice(store)], allow_foreign=True).digest() == corpus.digest()
    numbers = np.array([3, 39, 0])
    torch.testing.assert_close(admitted.rows(numbers, 0), images.rows(numbers, 0), rtol=0, atol=0)
    assert admitted.name(39) == "39 in " + str(store.path)


def test_what_is_foreign_says_nothing_of_the_tower(make_store: MakeStore) -> None:
    strange, prototypes, photos = foreign(make_store("f")), make_store("p", kind="prototypes"), make_store("a")
    assert image_reference([strange]) == image_reference([strange, strange])
    assert image_reference([strange]).identity is None
    assert image_reference([strange, prototypes]).identity == prototypes.identity
    assert image_reference([strange, prototypes, photos]).identity == photos.identity


def test_what_is_known_is_compared_though_foreign_stores_are_admitted(make_store: MakeStore) -> None:
    strange, a, other = foreign(make_store("f")), make_store("a"), make_store("b", weights="v" * 64)
    assert load_images([choice(strange), choice(a)], allow_foreign=True).stores[1].identity == a.identity
    with pytest.raises(MismatchError, match="a and .*b do not train together: other weights"):
        load_images([choice(strange), choice(a), choice(other)], allow_foreign=True)
    np.save(strange.path / "img_emb" / "img_emb_0000.npy", np.zeros((40, 7), np.float16))
    with pytest.raises(MismatchError, match=r"f do not train together: another number of dimensions \(12 and 7\)"):
        load_images([choice(strange), choice(a)], allow_foreign=True)


def test_a_foreign_store_is_checked_as_its_mean_is_taken(make_store: MakeStore) -> None:
    strange = foreign(make_store("f"))
    rows = strange.embeddings()
    rows[17, 3] = np.inf
    np.save(strange.path / "img_emb" / "img_emb_0000.npy", rows)
    with pytest.raises(InputError, match=r"img_emb_0000\.npy: row 17 .* holds inf"):
        load_images([choice(strange)], allow_foreign=True)


def test_memory_does_not_grow_with_a_foreign_store(make_store: MakeStore) -> None:
    strange = foreign(make_store("f"))
    rows = np.random.default_rng(0).normal(size=(200_000, 12)).astype(np.float32)
    np.save(strange.path / "img_emb" / "img_emb_0000.npy", rows)
    pq.write_table(pa.table({"caption": ["x"] * len(rows)}), strange.path / "metadata" / "metadata_0000.parquet")
    tracemalloc.start()
    center = load_images([choice(strange)], allow_foreign=True).image_center
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    torch.testing.assert_close(center, torch.from_numpy(rows.mean(axis=0, dtype=np.float64)).float(), atol=1e-4, rtol=0)
    assert peak < rows.nbytes / 3
