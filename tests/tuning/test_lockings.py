"""All nine lockings of the two letters: what is locked has no gradient and no state, and stays as it is, bit by bit."""

from pathlib import Path

import pytest
import torch

from littune.base.distributed import ALONE
from littune.base.errors import InputError
from littune.config import TrainConfig
from littune.model.lit import LiT
from littune.pairs import open_pairs
from littune.store.embed import embed
from littune.towers import load_image_tower
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
    from littune.tuning import train as train_module

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
