from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from littune.base.errors import InputError
from littune.towers.image.from_timm import build_timm, preprocess_of
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower


def drawn(name: str, seed: int = 0, num_classes: int | None = None) -> nn.Module:
    torch.manual_seed(seed)
    model: nn.Module = (
        timm.create_model(name) if num_classes is None else timm.create_model(name, num_classes=num_classes)
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    return model.eval()


def pixels(tower: ImageTower) -> torch.Tensor:
    size = tower.preprocess.size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, 3, size, size), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def check(tower: ImageTower, model: nn.Module) -> None:
    """That the tower says what the model says without its classifier."""
    images = tower.preprocess.normalize(pixels(tower))
    expected = model.forward_head(model.forward_features(images), pre_logits=True)
    torch.testing.assert_close(tower.encode(pixels(tower)), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
def test_a_checkpoint_loads(tmp_path: Path, suffix: str) -> None:
    model, path = drawn("test_vit"), tmp_path / f"checkpoint{suffix}"
    if suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    tower = load_image_tower(f"timm:test_vit@{path}", precision="float32")
    check(tower, model)
    assert tower.classifier is not None
    assert torch.equal(tower.classifier.weight, model.head.weight)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            {"options": {"pretrained": True, "act_layer": "gelu"}},
            "has the options pretrained of timm's test_vit, which",
        ),
        (
            {"options": {"checkpoint_path": "/somewhere", "cache_dir": "/"}},
            "has the options cache_dir, checkpoint_path",
        ),
        ({"options": {"pretrained_cfg_overlay": {"file": "/somewhere"}}}, "has the options pretrained_cfg_overlay of"),
        ({"name": "hf-hub:someone/elses"}, "timm has no model 'hf-hub:someone/elses'"),
        ({"name": "local-dir:/somewhere"}, "timm has no model 'local-dir:/somewhere'"),
    ],
)
def test_a_recipe_fetches_nothing(
    recipe: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = {"kind": "timm", "name": "test_vit", "num_classes": 0, "options": {"act_layer": "gelu_tanh"}}
    trunk = build_timm(usual)
    trunk.recipe = {**usual, **recipe}
    preprocess = preprocess_of(trunk.model, "timm:test_vit")
    ImageTower(spec="timm:test_vit", trunk=trunk, preprocess=preprocess).save_weights(tmp_path / "bundle.safetensors")
    made: list[object] = []
    monkeypatch.setattr("timm.create_model", lambda *_, **__: made.append(1))
    with pytest.raises(InputError, match=f"^the recipe of an image tower.* {message}"):
        load_image_tower("timm:test_vit", weights=tmp_path / "bundle.safetensors")
    assert made == []


@pytest.mark.parametrize("key", ["state_dict", "model", "state_dict_ema"])
def test_training_checkpoints_are_unwrapped(tmp_path: Path, key: str) -> None:
    model = drawn("test_resnet")
    weights = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({key: weights, "epoch": 3}, tmp_path / "last.pth")
    check(load_image_tower(f"timm:test_resnet@{tmp_path / 'last.pth'}", precision="float32"), model)


@pytest.mark.parametrize("num_classes", [0, 7, 21843])
def test_the_checkpoint_says_how_many_classes_there_are(tmp_path: Path, num_classes: int) -> None:
    model = drawn("test_vit", num_classes=num_classes)
    torch.save(model.state_dict(), tmp_path / "c.pth")
    tower = load_image_tower(f"timm:test_vit@{tmp_path / 'c.pth'}", precision="float32")
    check(tower, model)
    if num_classes == 0:
        assert tower.classifier is None
    else:
        assert tower.classifier is not None and len(tower.classifier.weight) == num_classes
        assert tower.classifier.label_set == ("imagenet-21k-goog" if num_classes == 21843 else "")


def test_foreign_names_go_through_timms_filter(tmp_path: Path) -> None:
    """ConvNeXt's original checkpoints have other names, the classifier's among them."""
    model = drawn("convnext_atto")
    swaps = [("stem.", "downsample_layers.0."), ("head.norm.", "norm."), ("head.fc.", "head.")]
    foreign = {}
    for name, value in model.state_dict().items():
        for ours, theirs in swaps:
            if name.startswith(ours):
                name = theirs + name.removeprefix(ours)
                break
        if name.startswith("stages."):
            name = name.replace(".blocks", "").replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
            stage, rest = name.split(".", 2)[1:]
            is_downsample = rest.startswith("downsample.")
            name = f"downsample_layers.{stage}.{rest.removeprefix('downsample.')}" if is_downsample else name
        foreign[name] = value
    torch.save({"model": foreign}, tmp_path / "original.pth")
    tower = load_image_tower(f"timm:convnext_atto@{tmp_path / 'original.pth'}", precision="float32")
    check(tower, model)
    assert tower.classifier is not None


def jax_weights(model: nn.Module, num_classes: int) -> dict[str, np.ndarray]:
    """A ViT under the names of the original JAX checkpoints, with a head of so many classes."""
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    dim, heads = state["cls_token"].shape[-1], model.blocks[0].attn.num_heads
    weights = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": np.ones((dim, num_classes), np.float32),
        "head/bias": np.ones(num_classes, np.float32),
    }
    for block in range(len(model.blocks)):
        ours, theirs = f"blocks.{block}.", f"Transformer/encoderblock_{block}/"
        for number, name in ((1, "LayerNorm_0"), (2, "LayerNorm_2")):
            weights[f"{theirs}{name}/scale"] = state[f"{ours}norm{number}.weight"]
            weights[f"{theirs}{name}/bias"] = state[f"{ours}norm{number}.bias"]
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        for part, name in enumerate(("query", "key", "value")):
            rows = slice(part * dim, (part + 1) * dim)
            weights[f"{attention}{name}/kernel"] = state[f"{ours}attn.qkv.weight"][rows].T.reshape(dim, heads, -1)
            weights[f"{attention}{name}/bias"] = state[f"{ours}attn.qkv.bias"][rows].reshape(heads, -1)
        weights[f"{attention}out/kernel"] = state[f"{ours}attn.proj.weight"].T.reshape(heads, -1, dim)
        weights[f"{attention}out/bias"] = state[f"{ours}attn.proj.bias"]
        for layer in (0, 1):
            weights[f"{theirs}MlpBlock_3/Dense_{layer}/kernel"] = state[f"{ours}mlp.fc{layer + 1}.weight"].T
            weights[f"{theirs}MlpBlock_3/Dense_{layer}/bias"] = state[f"{ours}mlp.fc{layer + 1}.bias"]
    return weights


@pytest.mark.parametrize("num_classes", [1000, 10])
def test_an_npz_checkpoint_loads_and_a_head_that_does_not_fit_is_dropped(tmp_path: Path, num_classes: int) -> None:
    model = drawn("vit_tiny_patch16_224")
    np.savez(tmp_path / "vit.npz", **jax_weights(model, num_classes))
    tower = load_image_tower(f"timm:vit_tiny_patch16_224@{tmp_path / 'vit.npz'}", precision="float32")
    check(tower, model)
    if num_classes == 1000:
        assert tower.classifier is not None and tower.classifier.weight.unique().tolist() == [1.0]
    else:
        assert tower.classifier is None


def test_poolings_of_a_vit(tmp_path: Path) -> None:
    model, path = drawn("test_vit"), tmp_path / "c.pth"
    torch.save(model.state_dict(), path)

    def embed(pooling: str) -> torch.Tensor:
        tower = load_image_tower(f"timm:test_vit@{path}", pooling=pooling, precision="float32")
        return tower.encode(pixels(tower))

    tower = load_image_tower(f"timm:test_vit@{path}")
    with torch.no_grad():
        tokens = model.forward_features(tower.preprocess.normalize(pixels(tower)))
    torch.testing.assert_close(embed("cls"), tokens[:, 0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(embed("mean"), tokens[:, 1:].mean(dim=1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(embed("cls+mean"), torch.cat([embed("cls"), embed("mean")], dim=1))


@torch.no_grad()
def test_the_mean_of_a_map_with_channels_last(tmp_path: Path) -> None:
    model, path = drawn("test_mambaout"), tmp_path / "c.pth"
    torch.save(model.state_dict(), path)
    tower = load_image_tower(f"timm:test_mambaout@{path}", pooling="mean", precision="float32")
    features = model.forward_features(tower.preprocess.normalize(pixels(tower)))
    assert features.shape[3] == tower.dim == 64
    torch.testing.assert_close(tower.encode(pixels(tower)), features.mean(dim=(1, 2)), rtol=1e-3, atol=1e-4)


def test_preprocessing_is_timms() -> None:
    preprocess = preprocess_of(timm.create_model("test_vit.r160_in1k"), "timm:test_vit")
    assert (preprocess.size, preprocess.resize, preprocess.fit) == (160, 168, "short")
    assert (preprocess.interpolation, preprocess.mean) == ("bicubic", (0.5, 0.5, 0.5))
    model = timm.create_model("test_vit", pretrained_cfg_overlay={"crop_mode": "squash", "crop_pct": 1.0})
    assert preprocess_of(model, "t").fit == "stretch" and preprocess_of(model, "t").resize == 160
    model = timm.create_model("test_vit", pretrained_cfg_overlay={"crop_mode": "border"})
    with pytest.raises(InputError, match="cropped by 'border'"):
        preprocess_of(model, "t")


def test_pretrained_weights_without_a_network_are_one_clear_line() -> None:
    with pytest.raises(
        InputError, match=r"'timm:test_vit': no pre-trained weights .*write timm:test_vit@FILE"
    ) as error:
        load_image_tower("timm:test_vit")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm:resnet81", "timm has no model 'resnet81'; did you mean timm:resnet"),
        ("timm:zzzzzzzzzz", r"timm has no model 'zzzzzzzzzz'; timm.list_models\(\) names them"),
        ("timm:resnet18.nonsense", "'timm:resnet18.nonsense': .*Invalid pretrained tag"),
        ("timm:resnet18@/nowhere/c.pth", "the checkpoint /nowhere/c.pth does not exist"),
    ],
)
def test_wrong_names_are_one_clear_line(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_image_tower(spec)
    assert "\n" not in str(error.value)


class Payload:
    """Pickled code, were it ever run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must not run",)


def test_unusable_checkpoints_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = drawn("test_resnet").state_dict()
    renamed = {name.replace("conv1", "other"): value for name, value in weights.items()}
    contents = {
        "other_model.pth": drawn("test_vit").state_dict(),
        "renamed.pth": renamed,
        "short.pth": dict(list(weights.items())[3:]),
        "tensor.pth": torch.ones(3),
        "code.pth": {"state_dict": weights, "args": Payload()},
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "garbage.pth").write_bytes(b"no checkpoint")
    (tmp_path / "garbage.safetensors").write_bytes(b"no checkpoint")
    (tmp_path / "garbage.npz").write_bytes(b"no checkpoint")
    (tmp_path / "empty.pth").touch()
    problems = {
        "code.pth": "holds no plain weights but a pickle",
        "garbage.pth": "holds no plain weights but a pickle",
        "empty.pth": "is cut short or damaged; download it again",
        "garbage.safetensors": "is cut short or damaged; download it again",
    }
    for path in sorted(tmp_path.iterdir()):
        problem = problems.get(path.name, "is no checkpoint of test_resnet")
        with pytest.raises(InputError, match=f"{path.name} {problem}") as error:
            load_image_tower(f"timm:test_resnet@{path}")
        assert "\n" not in str(error.value) and len(str(error.value)) < 600
    assert "must not run" not in capsys.readouterr().out
