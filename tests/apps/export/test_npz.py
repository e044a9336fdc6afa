"""Round trips through the published format, exact; and the models that it cannot hold."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import processors
from torch import nn

from littune.apps.export.base import ExportOptions
from littune.apps.export.npz import to_npz
from littune.base.errors import LittuneError
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.towers.image.preprocess import Preprocess
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
from littune.towers.text.sources import load_text_tower
from littune.towers.text.tower import TextTower
from tests.towers.lit.checkpoints import PUBLISHED, TEXTS, VARIANTS, draw, save

OPTIONS = ExportOptions()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def bert(tmp_path: Path) -> LiT:
    return LiT.load(f"lit:{save(tmp_path, VARIANTS['LiT-B16B_2'])}", precision="float32")


@pytest.fixture
def small(tmp_path: Path) -> LiT:
    (tmp_path / "small").mkdir()
    return LiT.load(f"lit:{save(tmp_path / 'small', VARIANTS['LiT-L16S'])}", precision="float32")


def check_same(path: Path, again: Path) -> None:
    with np.load(path) as theirs, np.load(again) as ours:
        assert set(ours.files) == set(theirs.files)
        for name in theirs.files:
            assert ours[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(ours[name], theirs[name], strict=True)
    suffix = next(suffix for suffix in (".txt", ".model") if path.with_suffix(suffix).exists())
    assert again.with_suffix(suffix).read_bytes() == path.with_suffix(suffix).read_bytes()


@pytest.mark.parametrize("name", VARIANTS)
def test_through_a_run_and_back(name: str, tmp_path: Path, out: Path) -> None:
    path = save(tmp_path, VARIANTS[name])
    LiT.load(f"lit:{path}").save(tmp_path / "run", bundle=True)
    exported = to_npz(LiT.load(tmp_path / "run"), out, OPTIONS)
    check_same(path, out / "model.npz")
    assert exported.notes == ()
    assert {file.name for file in out.iterdir()} == {file.name for file in tmp_path.glob("model.*")}


@pytest.mark.slow
def test_a_published_size_through_a_run_and_back(tmp_path: Path, out: Path) -> None:
    path = save(tmp_path, PUBLISHED["LiT-B16B"])
    LiT.load(f"lit:{path}").save(tmp_path / "run", bundle=True)
    to_npz(LiT.load(tmp_path / "run"), out, OPTIONS)
    check_same(path, out / "model.npz")


def test_the_code_runs_where_it_was_exported(bert: LiT, out: Path) -> None:
    exported = to_npz(bert, out, OPTIONS)
    run = subprocess.run(
        [sys.executable, "-c", exported.how_to_load], cwd=out, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "(1, 32)\n"


def test_what_was_trained_is_written(bert: LiT, out: Path) -> None:
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.add_(0.01)
    expected = bert.encode_text(TEXTS)
    to_npz(bert, out, OPTIONS)
    again = LiT.load(f"lit:{out / 'model.npz'}", precision="float32")
    np.testing.assert_array_equal(again.encode_text(TEXTS), expected)
    assert again.logit_scale == bert.logit_scale


def test_a_bias_that_was_trained_is_written_where_the_file_had_none(tmp_path: Path, out: Path) -> None:
    model = LiT.load(f"lit:{save(tmp_path, VARIANTS['LiT-L16Ti'])}", precision="float32")
    assert model.text_head is not None
    model.text_head.bias.data[1] = 0.5
    to_npz(model, out, OPTIONS)
    with np.load(out / "model.npz") as arrays:
        assert arrays["txt/head/bias"][1] == 0.5


@pytest.mark.parametrize("name", ["LiT-B16B", "LiT-B16B_2"])
def test_a_centre_is_folded_into_an_image_head(name: str, tmp_path: Path, out: Path) -> None:
    model = LiT.load(f"lit:{save(tmp_path, VARIANTS[name])}", precision="float32")
    model.center.copy_(torch.linspace(-2, 2, 32))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    exported = to_npz(model, out, OPTIONS)
    assert exported.notes == ("The centre of the images is now the bias of an image head.",)
    again = LiT.load(f"lit:{out / 'model.npz'}", precision="float32")
    assert not again.center.any()
    np.testing.assert_allclose(again.encode_image(picture), model.encode_image(picture), atol=1e-6)
    np.testing.assert_array_equal(again.encode_text(TEXTS), model.encode_text(TEXTS))


def test_a_model_without_heads_gets_one_that_changes_nothing(bert: LiT, out: Path, tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir()
    sizes = replace(VARIANTS["LiT-B16B_2"], width=64)
    path = save(tmp_path / "wide", sizes, draw(replace(sizes, out_dim=64)))
    tower = load_image_tower(f"lit:{path}", precision="float32")
    model = LiT(text=bert.text, reference=ImageReference.of(tower), center=torch.zeros(64), heads="none").eval()
    to_npz(model, out, OPTIONS)
    again = LiT.load(f"lit:{out / 'model.npz'}", precision="float32")
    model.precision = "float32"
    np.testing.assert_allclose(again.encode_text(TEXTS), model.encode_text(TEXTS), atol=1e-6)


def refused(model: LiT, out: Path, problem: str) -> None:
    with pytest.raises(LittuneError, match=rf"the run does not fit the published .npz format: {problem}") as error:
        to_npz(model, out, OPTIONS)
    assert "\n" not in str(error.value)
    assert not any(out.iterdir())


def with_image(model: LiT, tower: ImageTower) -> LiT:
    model.reference = ImageReference.of(tower)
    model.image_tower = tower
    return model


def test_the_bias_of_a_sigmoid_loss_does_not_fit(bert: LiT, out: Path) -> None:
    bert.bias = nn.Parameter(torch.tensor(-10.0))
    refused(bert, out, "it has the bias of a sigmoid loss")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda vit: setattr(vit.blocks[1].mlp, "act", nn.GELU()), "computes GELU in another way than by tanh"),
        (lambda vit: setattr(vit.norm, "eps", 1e-5), "has other norms"),
        (lambda vit: setattr(vit.blocks[0].attn, "q_norm", nn.LayerNorm(8)), "has other layers"),
        (lambda vit: setattr(vit, "global_pool", "avg"), "pools with own, not by its class token"),
    ],
    ids=["gelu", "eps", "layers", "pooling"],
)
def test_other_vits_do_not_fit(bert: LiT, out: Path, change: object, problem: str) -> None:
    assert callable(change)
    change(bert.image_tower.module)
    refused(bert, out, f"its image tower lit:.* {problem}")


def test_other_pictures_do_not_fit(bert: LiT, out: Path) -> None:
    tower = bert.image_tower
    preprocess = Preprocess(size=32, resize=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    other = ImageTower(spec="timm:a", trunk=tower.trunk, preprocess=preprocess)
    refused(with_image(bert, other), out, "its image tower timm:a prepares pictures in another way")


def test_other_architectures_do_not_fit(bert: LiT, out: Path) -> None:
    tower = ImageTower.from_module(
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 32)),
        preprocess=bert.image_tower.preprocess,
        name="mine",
    )
    refused(with_image(bert, tower), out, "its image tower mine is no ViT of timm's")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pooling": "mean"}, "pools with mean, not by its class token"),
        ({"max_tokens": 12}, "reads 12 tokens, not 16"),
        ({"padded": True}, "reads 16 tokens"),
    ],
    ids=str,
)
def test_other_ways_of_reading_do_not_fit(bert: LiT, out: Path, changes: dict[str, object], problem: str) -> None:
    settings = {"spec": "hf:a", "pooling": "first", "max_tokens": 16, "pad_id": 0} | changes
    bert.text = TextTower(bert.text.encoder, bert.text.tokenizer, **settings)  # type: ignore[arg-type]
    refused(bert, out, f"its text tower hf:a {problem}")


def test_berts_own_tokenizer_does_not_fit(bert: LiT, out: Path) -> None:
    tokenizer = bert.text.tokenizer
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3))
    refused(bert, out, r"its text tower .* cuts texts in another way than .* without \[SEP\]")


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        ("hidden_act", "gelu", "computes gelu, not GELU by tanh"),
        ("layer_norm_eps", 1e-5, "has norms of eps 1e-05"),
        ("num_attention_heads", 2, "has other attention heads than of 64 channels"),
        ("is_decoder", True, "has other layers"),
    ],
)
def test_other_berts_do_not_fit(bert: LiT, out: Path, setting: str, value: object, problem: str) -> None:
    setattr(bert.text.encoder.config, setting, value)
    refused(bert, out, f"its text tower .* {problem}")


def test_a_tower_from_scratch_does_not_fit(bert: LiT, out: Path) -> None:
    bert.text = load_text_tower("scratch:Ti", max_tokens=16, texts=TEXTS)
    refused(bert, out, "its text tower scratch:Ti was not trained on texts that are filled up")


def test_another_pooling_of_a_small_tower_does_not_fit(small: LiT, out: Path) -> None:
    small.text.pooling = "mean"
    refused(small, out, "its text tower .* pools with mean, not the last token")
