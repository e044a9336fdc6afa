"""Embeddings as clip-retrieval writes them, trained on without images, scored, searched and classified with."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import littune as lt
from littune.base.errors import InputError, MismatchError
from littune.store.store import EmbeddingStore
from littune.towers.image.tower import ImageTower
from tests.tuning.conftest import pictures as pictures
from tests.tuning.conftest import tiny_image as tiny_image
from tests.tuning.conftest import tiny_text as tiny_text


@pytest.fixture(scope="module")
def tower(tiny_image: str) -> ImageTower:
    return lt.load_image_tower(tiny_image)


@pytest.fixture(scope="module")
def own(pictures: Path, tower: ImageTower, tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return lt.embed(tower, lt.open_pairs(pictures), tmp_path_factory.mktemp("own") / "store")


@pytest.fixture(scope="module")
def foreign(own: EmbeddingStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same embeddings by the hand of clip-retrieval: float32, two parts, parquet of pandas."""
    folder = tmp_path_factory.mktemp("foreign")
    rows, keys, texts = own.embeddings().astype(np.float32), own.keys(), own.texts()
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir()
    for number, part in enumerate((slice(0, 7), slice(7, None))):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", rows[part])
        frame = pd.DataFrame(
            {
                "image_path": [f"{key}.jpg" for key in keys[part]],
                "caption": [captions[0] for captions in texts[part]],
                "captions_long": [list(captions) for captions in texts[part]],
                "similarity": 0.3,
                "url": "https://example.org",
            }
        )
        frame.to_parquet(folder / "metadata" / f"metadata_{number}.parquet")
    return folder


def train(store: Path | str | list[Path | str], out: Path, text: str, **more: object) -> lt.LiT:
    return lt.train(store, out=out, **{"text": text, "epochs": 2, "batch_size": 8} | more)


def weights(model: lt.LiT) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith("image.")}


def test_with_the_tower_named_it_is_the_run_that_the_own_store_gives(
    own: EmbeddingStore, foreign: Path, tiny_image: str, tiny_text: str, pictures: Path, tmp_path: Path
) -> None:
    usual = train(f"{own.path}:1:caption", tmp_path / "usual", tiny_text)
    model = train(foreign, tmp_path / "run", tiny_text, allow_foreign=True, image=tiny_image)
    torch.testing.assert_close(weights(model), weights(usual), rtol=0, atol=0)
    assert model.reference == usual.reference

    again = lt.LiT.load(tmp_path / "run")
    picture, labels = pictures / "00.png", ["red", "green", "blue"]
    assert again.classify(picture, labels) == usual.classify(picture, labels)
    assert lt.evaluate(again, own).results[0].metrics == lt.evaluate(usual, own).results[0].metrics
    assert lt.evaluate(again, foreign, allow_foreign=True).results[0].num_images == own.num_rows
    with pytest.raises(InputError, match="--allow-foreign"):
        lt.evaluate(again, foreign)


def test_with_the_tower_unknown(
    own: EmbeddingStore,
    foreign: Path,
    tower: ImageTower,
    tiny_text: str,
    pictures: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run, settings = tmp_path / "run", {"allow_foreign": True, "val": (str(foreign),), "select": "best"}
    train(foreign, run, tiny_text, **settings)
    said = capfd.readouterr().err
    trusted = "of one image tower, which the run will not know, as only their width was checked"
    assert f"taken on trust to be {trusted}: {foreign}\n" in said
    about = json.loads((run / "model.json").read_text())["image"]
    assert (about["spec"], about["identity"], about["bundled"]) == ("unknown", None, False)
    assert (run / "README.md").is_file()

    model = lt.LiT.load(run)
    assert model.reference.identity is None
    assert model.encode_text("red").shape == (1, tower.dim)
    index = lt.Index(model, foreign, allow_foreign=True)
    pictures_of = [f"{key}.jpg" for key in own.keys()]  # noqa: SIM118 (a store is no mapping)
    assert sorted(hit.key for hit in index.search("red", k=99)) == sorted(pictures_of)
    assert lt.evaluate(model, foreign, allow_foreign=True, checks=("duplicates",)).results[0].num_images == own.num_rows
    for store in (foreign, own.path):
        with pytest.raises(lt.LittuneError, match="--allow-foreign"):
            lt.Index(model, store)
    assert len(lt.Index(model, own, allow_foreign=True)) == own.num_rows
    for wanted in (
        lambda: model.classify(pictures / "00.png", ["red", "green"]),
        lambda: lt.evaluate(model, pictures),
        lambda: model.save(tmp_path / "bundled", bundle=True),
    ):
        with pytest.raises(InputError, match=r"reads no pictures.*--image SPEC.*model\.image_tower = "):
            wanted()

    # Who knows the tower may say so; from then on it is as any other.
    model.image_tower = tower
    assert len(model.classify(pictures / "00.png", ["red", "green"])) == 2
    assert len(lt.Index(model, own)) == own.num_rows
    with pytest.raises(MismatchError, match="does not say which image tower"):
        lt.Index(model, EmbeddingStore.open(foreign, allow_foreign=True))


def test_what_is_taken_on_trust_is_said(
    own: EmbeddingStore, foreign: Path, tiny_text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = train([foreign, own.path], tmp_path / "mixed", tiny_text, allow_foreign=True, epochs=1)
    assert model.reference.identity == own.identity
    said = capfd.readouterr().err
    trusted = f"of {model.reference.spec}, as only their width was checked"
    assert f"taken on trust to be {trusted}: {foreign}\n" in said
    train([own.path], tmp_path / "plain", tiny_text, epochs=1)
    assert "on trust" not in capfd.readouterr().err
    with pytest.raises(InputError, match=f"{foreign} is a foreign store.*--allow-foreign"):
        train([own.path, foreign], tmp_path / "refused", tiny_text)


def test_weights_and_fields_are_those_of_the_columns(foreign: Path, tiny_text: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(f"{foreign}:2:captions_long", out, tiny_text, allow_foreign=True, epochs=1)
    with pytest.raises(InputError, match=r"no text in alt; .*caption, captions, captions_long, image_path, similarity"):
        train(f"{foreign}::alt", tmp_path / "other", tiny_text, allow_foreign=True)
    again = train(f"{foreign}:2:captions_long", out, tiny_text, allow_foreign=True, epochs=1)  # finished: loaded
    assert again.folder == out


def test_a_tower_of_another_width_or_another_tower(
    own: EmbeddingStore, foreign: Path, tiny_text: str, tiny_image: str, tmp_path: Path
) -> None:
    more = {"allow_foreign": True, "image": tiny_image}
    with pytest.raises(
        MismatchError, match=rf"{foreign} holds {own.dim}-d embeddings and .* gives {2 * own.dim}-d ones"
    ):
        train(foreign, tmp_path / "a", tiny_text, **more, image_pooling="cls+mean")
    with pytest.raises(MismatchError, match="another pooling"):
        train([foreign, own.path], tmp_path / "b", tiny_text, **more, image_pooling="mean")


def test_a_run_goes_on_from_one_that_does_not_know_its_tower(
    own: EmbeddingStore, foreign: Path, tiny_text: str, tiny_image: str, tmp_path: Path
) -> None:
    train(foreign, tmp_path / "first", tiny_text, allow_foreign=True, epochs=1)
    more = {"text": "", "from_run": str(tmp_path / "first"), "epochs": 1}
    with pytest.raises(MismatchError, match="the run does not know its image tower.*--allow-foreign"):
        lt.train(own, out=tmp_path / "refused", **more)
    second = lt.train(foreign, out=tmp_path / "second", allow_foreign=True, image=tiny_image, **more)
    assert second.reference.identity == own.identity
    assert lt.train(own, out=tmp_path / "third", allow_foreign=True, **more).reference.identity == own.identity
    assert lt.train(foreign, out=tmp_path / "fourth", allow_foreign=True, **more).reference.identity is None
    known = {**more, "from_run": str(tmp_path / "second")}
    with pytest.raises(InputError, match=r"second brings its image tower; leave out --image"):
        lt.train(foreign, out=tmp_path / "fifth", allow_foreign=True, image=tiny_image, **known)
    assert lt.train(foreign, out=tmp_path / "sixth", allow_foreign=True, **known).reference.identity == own.identity
