"""The dispatcher: what is refused before anything is loaded, and a folder that is whole or absent."""

from pathlib import Path

import pytest
import timm

from littune.apps.export import _TARGETS, Exported, ExportOptions, export
from littune.base.errors import InputError, LittuneError
from littune.cli import main
from littune.model.lit import LiT
from littune.towers.image.from_timm import TimmTrunk, preprocess_of
from littune.towers.image.tower import ImageTower


def small_tower() -> ImageTower:
    model = timm.create_model("test_vit")
    return ImageTower(spec="mine", trunk=TimmTrunk(model, "test_vit"), preprocess=preprocess_of(model, "mine"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that nothing may load."""

    def load(*_: object, **__: object) -> LiT:
        raise AssertionError("loaded")

    monkeypatch.setattr(LiT, "load", load)
    return str(tmp_path / "run")


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("npy", ExportOptions(), "a run cannot be exported to 'npy'; choose one of littune, npz, onnx, open_clip"),
        ("transformers", ExportOptions(int8=True), "int8 goes with --to onnx, not with transformers"),
        ("onnx", ExportOptions(on=("val",)), "--on goes with --int8"),
    ],
)
def test_what_cannot_be_is_said_before_a_model_is_loaded(
    to: str, options: ExportOptions, message: str, run: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        export(run, to=to, out=tmp_path / "out", options=options)


def test_a_mistyped_set_is_said_before_a_model_is_loaded(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(run).mkdir()
    with pytest.raises(SystemExit):
        main(["export", run, "--to", "onnx", "--int8", "--on", "nowhere", "--out", str(tmp_path / "out")])
    assert "the set nowhere does not exist" in capsys.readouterr().err


def test_an_image_tower_is_known_by_its_spec(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an image tower cannot be exported to 'npz'; choose one of onnx"):
        export("timm:test_vit", to="npz", out=tmp_path / "out")


def test_a_folder_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is there already"):
        export("timm:test_vit", to="onnx", out=tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is there already"):
        export("timm:test_vit", to="onnx", out=".")


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setitem(_TARGETS["an image tower"], "onnx", lambda: lambda *_: Exported(how_to_load=""))
    with pytest.raises(LittuneError, match="cannot write .*out: Not a directory"):
        export(small_tower(), to="onnx", out=tmp_path / "file" / "out")


def test_nothing_is_left_of_an_export_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(tower: object, out: Path, options: ExportOptions) -> Exported:
        (out / "half").touch()
        raise InputError("no further")

    monkeypatch.setitem(_TARGETS["an image tower"], "onnx", lambda: write)
    with pytest.raises(InputError, match="no further"):
        export(small_tower(), to="onnx", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())
