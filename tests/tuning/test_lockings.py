"""All nine lockings of the two letters: what is locked has no gradient and no state, and stays as it is, bit by bit."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from littune.apps.training import make_probe
from littune.base.distributed import ALONE
from littune.base.errors import InputError, MismatchError
from littune.config import TrainConfig
from littune.model.lit import LiT
from littune.pairs import open_pairs
from littune.store.embed import embed
from littune.towers import load_image_tower
from littune.tuning import train as train_module
from littune.tuning.run.checkpoint import read_metrics
from littune.tuning.setup import set_up
from littune.tuning.step import contrastive_step
from littune.tuning.train import fit
from tests.tuning.conftest import NUM_PICTURES

LOCKINGS = ("LL", "LU", "Lu", "UL", "UU", "Uu", "uL", "uU", "uu")


def config_of(locking: str, pictures: Path, image: str, text: str, out: Path, **changes: object) -> TrainConfig:
    settings: dict[str, object] = {
        "pairs": str(pictures),
        "image": image.partition("@")[0] if locking[0] == "u" else image,
        "text": "scratch:Ti" if locking[1] == "u" else text,
        "locking": locking,
        "out": out,
        "batch_size": 8,
        "epochs": 2,
        "lr": 1e-3,
    }
    return TrainConfig(**(settings | changes))


def other_image(folder: Path) -> str:
    """The spec of a tiny ViT with other weights."""
    torch.manual_seed(1)
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), folder / "other.pth")
    return f"timm:test_vit@{folder / 'other.pth'}"


@pytest.mark.parametrize("locking", LOCKINGS)
def test_what_is_locked_stays_and_the_rest_moves(
    locking: str, pictures: Path, tiny_image: str, tiny_text: str, tmp_path: Path
) -> None:
    config = config_of(locking, pictures, tiny_image, tiny_text, tmp_path / "run")
    model = fit(config)
    begun = set_up(config, ALONE)
    assert all(parameter.requires_grad for group in begun.optimizer.param_groups for parameter in group["params"])
    trained = {name.partition(".")[0] for name, p in begun.model.named_parameters() if p.requires_grad}
    assert ("image" in trained, "text" in trained) == (locking[0] != "L", locking[1] != "L")
    before, after = begun.model.text.state_dict(), model.text.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before) == (locking[1] == "L")
    first = load_image_tower(tiny_image, precision="float32")
    assert (model.reference.identity == first.identity) == (locking[0] == "L")
    assert (tmp_path / "run" / "image_tower.safetensors").exists() == (locking[0] != "L")
    assert model.encode_image([str(pictures / "00.png")]).shape == (1, model.dim)


def test_no_gradient_and_no_state_of_what_is_locked(
    pictures: Path, tiny_image: str, tiny_text: str, tmp_path: Path
) -> None:
    rules = ("text.encoder.core.embeddings.*:0", "text_head.bias:0")
    config = config_of("LU", pictures, tiny_image, tiny_text, tmp_path / "run", lr_rules=rules)
    setup = set_up(config, ALONE)
    batch = setup.batches.at(0)

    def loss(images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        left, right = setup.model.factors(images, texts)
        return -(left @ right.T).diagonal().mean()

    sides = [(setup.images, batch.images), (setup.texts, batch.texts)]
    contrastive_step(sides, loss, setup.optimizer, step=0, max_norm=1.0)
    locked = {name: p for name, p in setup.model.named_parameters() if not p.requires_grad}
    assert "text_head.bias" in locked and any("word_embeddings" in name for name in locked)
    assert all(p.grad is None and p not in setup.optimizer.state for p in locked.values())
    assert setup.model.text_head is not None and setup.model.text_head.weight in setup.optimizer.state


def test_live_and_from_the_store_agree_to_the_store_s_float16(
    pictures: Path, tiny_image: str, tiny_text: str, tmp_path: Path
) -> None:
    live = fit(config_of("LU", pictures, tiny_image, tiny_text, tmp_path / "live", seed=3))
    tower = load_image_tower(tiny_image)
    embed(tower, open_pairs(pictures), tmp_path / "store")
    stored = fit(
        TrainConfig(
            store=(str(tmp_path / "store"),),
            out=tmp_path / "stored",
            text=tiny_text,
            locking="LU",
            batch_size=8,
            epochs=2,
            lr=1e-3,
            seed=3,
        )
    )
    texts = ["a red dog", "something"]
    # float16 has 11 bits; Adam turns what they cut off a gradient that is about 0 into steps as large as any.
    assert abs(live.encode_text(texts) - stored.encode_text(texts)).max() < 2e-3
    torch.testing.assert_close(live.center, stored.center, rtol=1e-3, atol=5e-4)


def test_a_trained_image_tower_goes_on_and_scores_from_its_run(
    pictures: Path, tiny_image: str, tiny_text: str, tmp_path: Path
) -> None:
    first = fit(config_of("UU", pictures, tiny_image, tiny_text, tmp_path / "one", heads="both", out_dim=16))
    assert first.dim == 16 and first.image_head is not None
    begun = config_of("UU", pictures, "", "", tmp_path / "two", from_run=str(tmp_path / "one"))
    second = fit(begun)
    assert second.reference.identity != first.reference.identity
    store = embed(load_image_tower(f"run:{tmp_path / 'one'}"), open_pairs(pictures), tmp_path / "store")
    first.check_store(store)
    assert store.num_rows == NUM_PICTURES
    loaded = LiT.load(tmp_path / "one")
    assert (loaded.encode_image(str(pictures / "00.png")) == first.encode_image(str(pictures / "00.png"))).all()


@pytest.mark.parametrize("locking", ["UU", "uu"])
def test_resume_on_pixels_equals_no_interruption(
    locking: str,
    pictures: Path,
    tiny_image: str,
    tiny_text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def config(name: str) -> TrainConfig:
        more = {"augment": "inception", "flip": True, "captions": "one", "loss": "sigmoid"}
        return config_of(locking, pictures, tiny_image, tiny_text, tmp_path / name, **more)

    whole = fit(config("whole"))
    step, calls = train_module.contrastive_step, 0

    def killed(*args: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return step(*args, **named)

    monkeypatch.setattr(train_module, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(train_module, "SAVING_TIMES", 0)
    monkeypatch.setattr(train_module, "contrastive_step", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(config("cut"))
    resumed = fit(config("cut"))
    picture = str(pictures / "03.png")
    assert (resumed.encode_image(picture) == whole.encode_image(picture)).all()
    assert (resumed.encode_text("a red dog") == whole.encode_text("a red dog")).all()


def test_settings_that_do_not_go_together(pictures: Path, tiny_image: str, tiny_text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="locking = 'UU' trains the image tower, which takes pixels"):
        TrainConfig(store=("s",), out=tmp_path, text=tiny_text, locking="UU")
    with pytest.raises(InputError, match="augment = 'resize' is not usable: it must be unset with --store"):
        TrainConfig(store=("s",), out=tmp_path, text=tiny_text, augment="resize")
    with pytest.raises(InputError, match="'LL' without heads leaves nothing to train"):
        config_of("LL", pictures, tiny_image, tiny_text, tmp_path, heads="none")
    with pytest.raises(InputError, match="without heads the towers must agree: 64-d images, 32-d texts"):
        fit(config_of("UU", pictures, tiny_image, tiny_text, tmp_path / "a", heads="none"))
    with pytest.raises(InputError, match="lr_rules lock every parameter"):
        fit(config_of("LL", pictures, tiny_image, tiny_text, tmp_path / "b", lr_rules=("*:0",)))


@pytest.mark.parametrize("locking", ["LL", "LU", "UU", "uu"])
def test_what_is_trained_on_is_what_is_scored(
    locking: str, pictures: Path, tiny_image: str, tiny_text: str, tmp_path: Path
) -> None:
    """The outputs that the loss sees, projected, are those of the model's own image tower."""
    config = config_of(locking, pictures, tiny_image, tiny_text, tmp_path / "run")
    if locking == "UU":  # from a run that has a centre
        fit(config_of("LU", pictures, tiny_image, tiny_text, tmp_path / "before"))
        config = config_of("UU", pictures, "", "", tmp_path / "run", from_run=str(tmp_path / "before"))
    setup = set_up(config, ALONE)
    model = setup.model
    if locking == "UU":
        assert model.center.any()
    if model.image is not None:
        model.image.eval()
    numbers = np.arange(NUM_PICTURES)
    with setup.images.planned(numbers, 0) as plan, torch.no_grad():
        seen = model.project_centered(torch.cat([output for _, output in plan.outputs()]))
    model.lock_image()
    paths = [str(pictures / f"{number:02}.png") for number in numbers]
    torch.testing.assert_close(seen, torch.from_numpy(model.encode_image(paths)), rtol=1e-4, atol=1e-5)


def test_a_run_from_one_that_carries_its_image_tower_carries_it_too(
    pictures: Path, tiny_image: str, tiny_text: str, tmp_path: Path
) -> None:
    first = fit(config_of("UU", pictures, tiny_image, tiny_text, tmp_path / "one"))
    second = fit(config_of("LU", pictures, "", "", tmp_path / "two", from_run=str(tmp_path / "one")))
    picture = str(pictures / "05.png")
    expected = first.image_tower.encode(first.image_tower.preprocess(Image.open(picture))[None])
    shutil.rmtree(tmp_path / "one")
    assert second.reference.identity == first.reference.identity
    tower = LiT.load(tmp_path / "two").image_tower
    torch.testing.assert_close(tower.encode(tower.preprocess(Image.open(picture))[None]), expected)


def test_what_cannot_work_is_said_before_anything_is_spent(
    pictures: Path, tiny_image: str, tiny_text: str, tmp_path: Path
) -> None:
    store = embed(load_image_tower(tiny_image), open_pairs(pictures), tmp_path / "store")
    with pytest.raises(InputError, match="store, of an image tower that this run changes: name its pairs instead"):
        fit(config_of("UU", pictures, tiny_image, tiny_text, tmp_path / "a", val=(str(store.path),)))
    with pytest.raises(InputError, match="loss_parts = 20 is too many for a batch of 24"):
        fit(config_of("LU", pictures, tiny_image, tiny_text, tmp_path / "b", batch_size=64, loss_parts=20))
    with pytest.raises(MismatchError, match="is not of the image tower"):
        fit(config_of("LL", pictures, other_image(tmp_path), tiny_text, tmp_path / "c", center_on=str(store.path)))
    fit(config_of("LU", pictures, tiny_image, tiny_text, tmp_path / "d"))
    for refused in ({"center": "none"}, {"image_pooling": "mean"}):
        with pytest.raises(InputError, match="brings its centre and pooling"):
            fit(config_of("LU", pictures, "", "", tmp_path / "e", from_run=str(tmp_path / "d"), **refused))


def test_statistics_of_locked_norms_stay(pictures: Path, tiny_text: str, tmp_path: Path) -> None:
    for name, rules in (("moving", ()), ("locked", ("image.*:0",))):
        config = config_of("uU", pictures, "timm:test_resnet", tiny_text, tmp_path / name, lr_rules=rules)
        before = set_up(config, ALONE).model.image.state_dict()
        fit(config)
        after = LiT.load(config.out).image_tower.trunk.state_dict()
        statistics = [key for key in after if key.endswith("running_mean")]
        same = all(torch.equal(before[f"trunk.{key}"], after[key]) for key in statistics)
        assert statistics and same == (name == "locked")


def test_scoring_a_tower_that_is_trained_leaves_no_store_behind(
    pictures: Path, tiny_image: str, tiny_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITTUNE_CACHE", str(tmp_path / "cache"))
    config = config_of("UU", pictures, tiny_image, tiny_text, tmp_path / "run", val=(str(pictures),))
    fit(config, probe=make_probe(config.val))
    assert not list((tmp_path / "cache").glob("stores/*"))
    scored = [record for record in read_metrics(config.out) if any("recall@1" in name for name in record)]
    assert len({str(record) for record in scored}) > 1


@pytest.mark.parametrize("locking", ["Uu", "uU", "UU", "uu", "LU"])
def test_a_pre_trained_tower_beside_a_new_one_takes_smaller_steps(
    locking: str, pictures: Path, tiny_image: str, tiny_text: str, tmp_path: Path
) -> None:
    setup = set_up(config_of(locking, pictures, tiny_image, tiny_text, tmp_path / "run"), ALONE)
    factor_of = {id(p): group["lr_factor"] for group in setup.optimizer.param_groups for p in group["params"]}
    factors = {}
    for name, parameter in setup.model.named_parameters():
        if parameter.requires_grad:
            factors.setdefault(name.partition(".")[0], set()).add(factor_of[id(parameter)])
    expected = {"U": {0.1}, "u": {1.0}} if "u" in locking else {"U": {1.0}}
    assert factors["text"] == expected[locking[1]]
    if locking[0] != "L":
        assert factors["image"] == expected[locking[0]]
    assert factors["text_head"] == ({1.0} if "u" in locking else {20.0})
