"""Torch modules as ONNX graphs agree with them, at any batch size and length."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
from torch import Tensor, nn

import littune.apps.export.onnx.graphs as graphs
from littune.apps.export.onnx.graphs import ImageGraph, TextGraph, TowerGraph, cosines, session_of, to_graph
from littune.base.errors import LittuneError
from littune.model.lit import LiT
from littune.towers.image.from_hf import HFTrunk
from littune.towers.image.from_timm import TimmTrunk
from littune.towers.image.tower import ImageTower, Trunk
from littune.towers.text.sources import load_text_tower
from littune.towers.text.transformer import Transformer
from tests.apps.export.onnx.conftest import PREPROCESS, SaveTextModel, make_model, make_text, make_tower
from tests.open_clip_models import drawn, in_folder, registered
from tests.towers.conftest import TEXTS


def check_texts(model: LiT) -> None:
    session = session_of(to_graph(TextGraph(model), "the text tower").SerializeToString())
    assert [value.shape for value in session.get_inputs()] == [["batch", "length"]] * 2
    for texts in (TEXTS[3:4], TEXTS[:1], TEXTS, [*TEXTS, *TEXTS]):
        tokens = model.text.tokenize(texts)
        ids, mask = tokens.batch(range(len(texts)))
        for padding in (0, 2):
            fed = {
                "input_ids": np.pad(ids.numpy(), ((0, 0), (0, padding)), constant_values=model.text.pad_id),
                "attention_mask": np.pad(mask.long().numpy(), ((0, 0), (0, padding))),
            }
            if fed["input_ids"].shape[1] <= model.text.max_tokens:
                (rows,) = session.run(["text_embeds"], fed)
                assert rows.dtype == np.float32
                assert cosines(rows, model.encode_text(texts)).min() >= 0.9999
                np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_texts_without_a_head() -> None:
    check_texts(make_model(make_text(), heads="image"))


def test_texts_of_bert(model: LiT) -> None:
    check_texts(model)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["roberta", "modernbert", "t5", "gpt2"])
@pytest.mark.parametrize("pooling", ["cls_token", "mean_tokens", "lasttoken"])
def test_texts_of_others(kind: str, pooling: str, save_text_model: SaveTextModel, tmp_path: Path) -> None:
    check_texts(make_model(f"hf:{save_text_model(kind, tmp_path / kind, pooling=pooling)}"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny-vit", "tiny-mlp", "tiny-siglip", "tiny-worldwide"])
def test_texts_of_open_clip(name: str, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with registered(tmp_path / "models"):
        folder = in_folder(drawn(name), name, tmp_path / "clip")
        check_texts(make_model(load_text_tower(f"open_clip:{folder}")))


def test_images_are_centred_and_of_unit_length() -> None:
    model = make_model(make_text(), heads="both", out_dim=10)
    session = session_of(to_graph(ImageGraph(model), "the image tower").SerializeToString())
    for count in (1, 5):
        pixels = torch.randint(256, (count, 3, 12, 12), dtype=torch.uint8)
        with torch.no_grad():
            expected = model.project_images(model.image_tower.encode(pixels)).numpy()
        fed = {"pixel_values": model.image_tower.preprocess.normalize(pixels).numpy()}
        (rows,) = session.run(["image_embeds"], fed)
        assert cosines(rows, expected).min() >= 0.9999
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def timm_trunk(name: str) -> Trunk:
    return TimmTrunk(timm.create_model(name, num_classes=0), name)


def hf_trunk() -> Trunk:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.Dinov2WithRegistersConfig(**sizes, image_size=12, patch_size=4, num_register_tokens=3)
    return HFTrunk(transformers.Dinov2WithRegistersModel(config), "dinov2_with_registers", has_pooler=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("test_vit", "own"),
        ("test_vit", "cls+mean"),
        ("test_efficientnet", "own"),
        ("test_resnet", "mean"),
        ("hf", "cls"),
    ],
)
def test_towers_of_libraries(name: str, pooling: str) -> None:
    torch.manual_seed(0)
    trunk = hf_trunk() if name == "hf" else timm_trunk(name)
    size = 12 if name == "hf" else 160
    preprocess = type(PREPROCESS)(size=size, resize=size, mean=PREPROCESS.mean, std=PREPROCESS.std)
    tower = ImageTower(spec=name, trunk=trunk, preprocess=preprocess, pooling=pooling)
    session = session_of(to_graph(TowerGraph(tower), name).SerializeToString())
    for count in (1, 3):
        pixels = torch.randint(256, (count, 3, size, size), dtype=torch.uint8)
        rows, *tokens = session.run(None, {"pixel_values": preprocess.normalize(pixels).numpy()})
        np.testing.assert_allclose(rows, tower.encode(pixels).numpy(), rtol=1e-4, atol=1e-4)
        assert len(tokens) == (pooling != "own")


def test_nothing_of_this_machine_is_in_a_graph() -> None:
    data = to_graph(TowerGraph(make_tower()), "the tower").SerializeToString()
    for word in (b".py", b"littune", b"File ", str(Path.home()).encode()):
        assert word not in data


def test_more_than_a_file_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_MOST_BYTES", 1000)
    with pytest.raises(LittuneError, match="the image tower has 0.0 GB of weights; an ONNX file holds 2 GB"):
        to_graph(TowerGraph(make_tower()), "the image tower")


class _Hooked(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * float(images.mean() > -100)


def test_what_torch_cannot_export_is_one_clear_line() -> None:
    tower = ImageTower.from_module(_Hooked(), preprocess=PREPROCESS, name="branching")
    with pytest.raises(LittuneError, match="torch cannot export the tower to ONNX: ") as error:
        to_graph(TowerGraph(tower), "the tower")
    assert "\n" not in str(error.value)


class _OfTwo(nn.Module):
    """As a graph, it says of all images after the second what it says of that."""

    def forward(self, images: Tensor) -> Tensor:
        rows = torch.arange(images.shape[0])
        return images.mean((2, 3))[rows.clamp(max=1) if torch.compiler.is_exporting() else rows]


class _OfOneWord(Transformer):
    """As a graph, it knows the first words alone, which the example has."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return super().forward(ids.clamp(max=1) if torch.compiler.is_exporting() else ids, mask)


def test_a_graph_of_images_that_fits_its_example_alone_is_refused() -> None:
    tower = ImageTower.from_module(_OfTwo(), preprocess=PREPROCESS, name="two")
    with pytest.raises(LittuneError, match="the tower as ONNX is not what it was"):
        to_graph(TowerGraph(tower), "the tower")


def test_a_graph_of_texts_that_fits_its_example_alone_is_refused() -> None:
    model = make_model(make_text())
    model.text.encoder.__class__ = _OfOneWord
    with pytest.raises(LittuneError, match="the tower as ONNX is not what it was"):
        to_graph(TextGraph(model), "the tower")


@pytest.mark.parametrize("padded", [False, True])
def test_the_trial_has_padding_where_it_is_masked(padded: bool) -> None:
    ids, mask = TextGraph(make_model(make_text(padded=padded))).trial()
    assert ids.shape == mask.shape == (3, 12)
    assert mask.sum(dim=1).tolist() == ([12, 12, 12] if padded else [12, 6, 12])
    assert (ids[1, 6:] == int(padded)).all()
    assert len(ids.unique()) > 10


def test_an_export_that_says_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "cosines", lambda first, second: np.array([0.9, 1.0]))
    with pytest.raises(LittuneError, match=r"is not what it was \(a cosine of 0.90000\)"):
        to_graph(TowerGraph(make_tower()), "the tower")
