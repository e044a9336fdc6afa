"""Rows of several stores: numbered through, centred each in its way, texts counted once."""

import numpy as np
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


def test_a_foreign_store_is_not_trained_on(make_store: MakeStore) -> None:
    store = make_store("a")
    (store.path / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"train takes no foreign stores; embed anew"):
        load_corpus([choice(store)])
