import builtins
import sys
from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from littune.base.errors import InputError, MissingExtraError
from littune.towers.image.sources import load_image_tower
from littune.towers.open_clip import find_clip
from littune.towers.specs import parse_spec
from littune.towers.text.sources import load_text_tower
from tests.open_clip_models import drawn, in_folder, registered


@pytest.fixture(scope="module", autouse=True)
def _models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(tmp_path_factory.mktemp("open-clip")):
        yield


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path("harm-was-done").touch, ())  # type: ignore[return-value]


def message(spec: str) -> str:
    with pytest.raises(InputError) as error:
        load_image_tower(spec)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_names_that_open_clip_does_not_know() -> None:
    assert "open_clip has no model 'ViT-B-23', nor is it a folder; did you mean open_clip:ViT-B-32?" in message(
        "open_clip:ViT-B-23"
    )
    assert "open_clip.list_models() names them" in message("open_clip:qqqqqqqq")
    assert "open_clip has no model 'hf-hub:a/b'" in message("open_clip:hf-hub:a/b")


def test_no_weights_are_named() -> None:
    found = message("open_clip:ViT-B/32")
    assert "which weights? add a tag (openai, laion400m_e31, " in found and "open_clip:ViT-B/32@openai" in found
    assert "which weights? add a file of weights, as in open_clip:tiny-vit@FILE" in message("open_clip:tiny-vit")


def test_neither_a_file_nor_a_tag() -> None:
    assert "openay is neither a file nor one of open_clip's tags; did you mean openai?" in message(
        "open_clip:ViT-B-32@openay"
    )
    assert "its tags are openai, laion400m_e31, laion400m_e32, laion2b_e16, …" in message("open_clip:ViT-B-32@qqq")
    assert "qqq is neither a file nor one of open_clip's tags; it has no tags" in message("open_clip:tiny-vit@qqq")


@pytest.mark.parametrize("load", [load_image_tower, load_text_tower])
def test_a_tag_without_a_network(load: object) -> None:
    with pytest.raises(InputError) as error:
        load("open_clip:ViT-B-32@openai")  # type: ignore[operator]
    assert "its weights cannot be downloaded now (" in str(error.value)
    fix = "fetch the folder hf.co/timm/vit_base_patch32_clip_224.openai where there is a network, and write open_clip:"
    assert fix in str(error.value) and "\n" not in str(error.value)


def test_a_tag_brings_its_preprocessing_and_its_gelu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip would warn that ViT-B-32 has another GELU than its weights, and go on."""
    path = tmp_path / "weights.pt"
    monkeypatch.setattr("littune.towers.open_clip.download_pretrained", lambda _settings: str(path))
    spec = parse_spec("open_clip:ViT-B-32@openai", kinds=["open_clip"])
    assert (find_clip(spec, "image tower").quick_gelu, find_clip(spec, "image tower").checkpoint) == (True, path)
    siglip = parse_spec("open_clip:ViT-B-16-SigLIP@webli", kinds=["open_clip"])
    settings = find_clip(siglip, "image tower").preprocess
    assert settings["resize_mode"] == "squash" and list(settings["mean"]) == [0.5] * 3


def test_every_tag_has_the_gelu_that_it_was_trained_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("littune.towers.open_clip.download_pretrained", lambda _settings: str(tmp_path / "weights.pt"))
    quick, changed = set(), set()
    for name, tag in open_clip.list_pretrained():
        clip = find_clip(parse_spec(f"open_clip:{name}@{tag}", kinds=["open_clip"]), "text tower")
        if clip.quick_gelu:
            quick.add((name, tag))
        if clip.quick_gelu != open_clip.get_model_config(name).get("quick_gelu", False):
            changed.add((name, tag))
    # open_clip goes by the model's name alone, and warns where a tag says something else: nothing is taken back.
    assert changed <= quick
    assert changed == {
        (name, tag)
        for name, tag in open_clip.list_pretrained()
        if open_clip.get_pretrained_cfg(name, tag).get("quick_gelu") and (f"{name}-quickgelu", tag) in quick
    }
    assert len(changed) > 20
    assert ("roberta-ViT-B-32", "laion2b_s12b_b32k") in quick and ("ViT-B-32", "laion2b_s34b_b79k") not in quick


def test_files_that_are_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = drawn("tiny-vit").state_dict()
    torch.save({"state_dict": weights, "more": Harmful()}, "pickle.pt")
    assert "pickle.pt holds more than weights, or none, and no code in it is run; " in message(
        "open_clip:tiny-vit@pickle.pt"
    )
    assert not Path("harm-was-done").exists()
    torch.save([1, 2], "list.pt")
    assert "list.pt holds no weights of a model" in message("open_clip:tiny-vit@list.pt")
    torch.save(weights, "whole.pt")
    save_file(weights, "whole.safetensors")
    for name in ("whole.pt", "whole.safetensors"):
        Path(f"part-{name}").write_bytes(Path(name).read_bytes()[:-1000])
        assert f"part-{name} cannot be read as weights (" in message(f"open_clip:tiny-vit@part-{name}")
        load_image_tower(f"open_clip:tiny-vit@{name}")


def test_a_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    torch.save(drawn("tiny-resnet").state_dict(), tmp_path / "clip.pt")
    found = message(f"open_clip:tiny-vit@{tmp_path / 'clip.pt'}")
    assert "clip.pt is no checkpoint of tiny-vit (Error(s) in loading state_dict for VisionTransformer:" in found


def test_positions_are_not_stretched(tmp_path: Path) -> None:
    weights = drawn("tiny-vit").state_dict()
    weights["visual.positional_embedding"] = weights["visual.positional_embedding"].repeat(4, 1)[:50]
    torch.save(weights, tmp_path / "clip.pt")
    assert "size mismatch for positional_embedding" in message(f"open_clip:tiny-vit@{tmp_path / 'clip.pt'}")


def test_folders(tmp_path: Path) -> None:
    assert "has no open_clip_config.json, and is no model of open_clip" in message(f"open_clip:{tmp_path}")
    in_folder(drawn("tiny-vit"), "tiny-vit", tmp_path)
    assert "the weights of a folder lie in it; leave '@x' out" in message(f"open_clip:{tmp_path}@x")
    (tmp_path / "open_clip_model.safetensors").rename(tmp_path / "other.safetensors")
    assert "has no weights; open_clip_model.safetensors should be there" in message(f"open_clip:{tmp_path}")
    (tmp_path / "open_clip_config.json").write_text("{}")
    assert "open_clip_config.json describes no model of open_clip" in message(f"open_clip:{tmp_path}")


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *more: object) -> object:
        if name.partition(".")[0] == "open_clip":
            raise ImportError(name)
        return real(name, *more)  # type: ignore[arg-type]

    for module in ("littune.towers.open_clip", "littune.towers.image.from_open_clip"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(MissingExtraError, match=r"open_clip_torch needs an extra.*pip install 'littune\[open-clip\]'"):
        load_image_tower("open_clip:ViT-B-32@openai")
