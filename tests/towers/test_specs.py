from pathlib import Path

import pytest

from littune.base.errors import InputError
from littune.towers.specs import Spec, parse_spec, without_checkpoint

KINDS = ("hf", "package", "timm")


def test_kind_and_name() -> None:
    spec = parse_spec("timm:resnet18.a1_in1k", kinds=KINDS)
    assert spec == Spec(text="timm:resnet18.a1_in1k", kind="timm", name="resnet18.a1_in1k", checkpoint=None)


def test_checkpoint_follows_the_first_at_sign() -> None:
    spec = parse_spec("timm:resnet18@/models/me@home.pth", kinds=KINDS)
    assert (spec.name, spec.checkpoint) == ("resnet18", "/models/me@home.pth")


def test_name_may_hold_colons_and_an_existing_folder_an_at_sign(tmp_path: Path) -> None:
    folder = tmp_path / "me@home"
    folder.mkdir()
    spec = parse_spec(f"hf:{folder}", kinds=KINDS)
    assert (spec.name, spec.checkpoint) == (str(folder), None)
    assert parse_spec("timm:a:b", kinds=KINDS).name == "a:b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet18", "image tower 'resnet18' does not say what kind it is; write KIND:NAME .* hf, package, timm"),
        ("tim:resnet18", "unknown kind 'tim'; did you mean 'timm'"),
        ("onnx:a", "unknown kind 'onnx'; write KIND:NAME .* hf, package, timm"),
        ("timm:", "has no name; write timm:NAME"),
        ("timm:@file", "has no name; write timm:NAME"),
        ("timm:resnet18@", "no checkpoint after '@'; write timm:resnet18@FILE"),
        ("", "does not say what kind it is"),
    ],
)
def test_unusable_specs_are_explained_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        parse_spec(text, kinds=KINDS, what="image tower")
    assert "\n" not in str(error.value)


def test_a_checkpoint_where_none_is_taken_is_an_error() -> None:
    plain = parse_spec("hf:some/model", kinds=KINDS)
    assert without_checkpoint(plain) is plain
    with pytest.raises(InputError, match="'hf' takes no '@main'; write hf:NAME"):
        without_checkpoint(parse_spec("hf:some/model@main", kinds=KINDS))
