"""Settings beside a graph: exact numbers, and every mistake named."""

from decimal import Decimal
from pathlib import Path

import pytest

from littune.base.errors import InputError
from littune.towers.image.onnx_settings import OnnxSettings, Twin
from littune.towers.image.preprocess import Preprocess

GOOD = "size = 8\nmean = [123.675, 116.28, 103.53]\nstd = [58.395, 57.12, 57.375]\n"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def read(tmp_path: Path, text: str) -> OnnxSettings:
    path = tmp_path / "a.toml"
    path.write_text(text, encoding="utf-8")
    return OnnxSettings.read(path)


def test_decimals_are_exactly_what_other_towers_have(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD).preprocess() == Preprocess(size=8, resize=8, **IMAGENET)


def test_channels_of_the_graph_are_turned_round(tmp_path: Path) -> None:
    plain, turned = read(tmp_path, GOOD), read(tmp_path, GOOD + 'channels = "bgr"\n')
    assert turned.preprocess().mean == plain.preprocess().mean[::-1]
    assert turned.preprocess().std == plain.preprocess().std[::-1]


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(size=4, resize=6, fit="stretch", interpolation="bilinear", **IMAGENET),
        Preprocess(size=4, resize=4, mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
        Preprocess(size=4, resize=4, mean=(1 / 3, 0.1 + 0.2, 1e-9), std=(2 / 3, 1e-7, 0.5)),
    ],
)
def test_a_torch_towers_preprocessing_comes_back_exactly(preprocess: Preprocess, tmp_path: Path) -> None:
    settings = OnnxSettings.of(preprocess, output="x", num_prefix_tokens=1)
    settings.save(tmp_path / "a.toml")
    again = OnnxSettings.read(tmp_path / "a.toml")
    assert again.preprocess() == preprocess
    assert (again.output, again.num_prefix_tokens, again.exported) == ("x", 1, None)


def test_numbers_are_written_short() -> None:
    preprocess = Preprocess(size=4, resize=4, mean=(127 / 255,) * 3, std=(0.229,) * 3)
    settings = OnnxSettings.of(preprocess, output="x", num_prefix_tokens=0)
    assert (settings.mean[0], settings.std[0]) == (Decimal("127"), Decimal("58.395"))


def test_the_torch_tower_is_recorded(tmp_path: Path) -> None:
    twin = Twin(weights="a", graph="b")
    channels = (Decimal(1),) * 3
    OnnxSettings(size=8, mean=channels, std=channels, exported=twin).save(tmp_path / "a.toml")
    assert OnnxSettings.read(tmp_path / "a.toml").exported == twin


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size = ", "is not valid TOML"),
        (GOOD + "sice = 3\n", "a.toml: the setting 'sice' is unknown; choose among size, mean"),
        ("mean = [1, 2, 3]\nstd = [1, 2, 3]\n", "the setting 'size' is missing"),
        ("size = 8\nstd = [1, 2, 3]\n", "the setting 'mean' is missing"),
        (GOOD.replace("8", '"8"', 1), "size = '8' must be a whole number"),
        (GOOD.replace("size = 8", "size = true"), "size = True must be a whole number"),
        (GOOD.replace("123.675, ", ""), "must be three numbers"),
        (GOOD.replace("123.675", "nan"), "must be three numbers"),
        (GOOD.replace("58.395", "0"), "std above 0"),
        (GOOD + "resize = 4\n", "size 8 must be from 1 to resize"),
        (GOOD + 'fit = "x"\n', "fit 'x' is unknown"),
        (GOOD + 'layout = "hwc"\n', "layout = 'hwc' is unknown; choose one of nchw, nhwc"),
        (GOOD + 'channels = "gray"\n', "channels = 'gray' is unknown; choose one of rgb, bgr"),
        (GOOD + "output = 3\n", "output = 3 must be a string"),
        (GOOD + "num_prefix_tokens = -1\n", "num_prefix_tokens = -1 must be 0 or more"),
        (GOOD + '[exported]\nweights = "a"\n', "is not what littune writes there"),
    ],
)
def test_mistakes_are_one_clear_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value)
