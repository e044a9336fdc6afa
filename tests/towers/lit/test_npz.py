"""Files: what is read of them, and one clear line for those that are something else."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from littune.base.errors import InputError
from littune.towers.lit.npz import read_checkpoint
from tests.towers.lit.checkpoints import NARROW, draw, save, shapes

SIZES = NARROW["LiT-B16B"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save(tmp_path, SIZES)


class Unpickled:
    """Tells when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("the pickle was run",)


def test_a_part_is_read_and_all_names_are_known(path: Path) -> None:
    checkpoint = read_checkpoint(path, "img/head/", "t")
    assert checkpoint.names == shapes(SIZES).keys()
    assert checkpoint.arrays.keys() == {"img/head/kernel", "img/head/bias", "t"}
    np.testing.assert_array_equal(checkpoint.arrays["t"], draw(SIZES)["t"])


def test_shapes_and_counts(path: Path) -> None:
    checkpoint = read_checkpoint(path, "img/")
    assert checkpoint.shape("img/embedding/kernel", 4) == (16, 16, 3, 32)
    assert checkpoint.count("img/Transformer/encoderblock_") == 2
    with pytest.raises(InputError, match=r"img/cls has the shape \(1, 1, 32\), where there should be 2 axes"):
        checkpoint.shape("img/cls", 2)
    with pytest.raises(InputError, match=r"model.npz lacks img/clas: it is no LiT checkpoint, or not a whole one"):
        checkpoint.shape("img/clas", 3)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the checkpoint .*none.npz does not exist"):
        read_checkpoint(tmp_path / "none.npz", "img/")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_partial_download(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=r"is no .npz file of arrays that can be read whole \(.*\); download it again"):
        read_checkpoint(path, "img/")


def test_a_byte_that_was_changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="Bad CRC"):
        read_checkpoint(path, "img/", "txt/", "t")


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(pickle.dumps(Unpickled()))
    with pytest.raises(InputError, match="it is no archive"):
        read_checkpoint(path, "img/")


def test_a_pickle_inside_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, **{"img/cls": np.array([Unpickled()], dtype=object)})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"no .npz file .*Object arrays cannot be loaded"):
        read_checkpoint(path, "img/")


def test_a_single_array(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3, np.float32))
    with pytest.raises(InputError, match="it is no archive"):
        read_checkpoint(path, "img/")


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("img/cls", "no array")
    with pytest.raises(InputError, match="img/cls is no array, not float32"):
        read_checkpoint(path, "img/")


@pytest.mark.parametrize("shape", [(10**13,), (2**62, 4), (2**40, 2**40), (2**70,)])
def test_an_array_that_says_it_is_larger_than_memory(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path, header = tmp_path / "model.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("img/cls.npy", header.getvalue() + bytes(16))
    with pytest.raises(InputError, match=r"model\.npz (is no \.npz file|says that it holds more than memory)") as error:
        read_checkpoint(path, "img/")
    assert "\n" not in str(error.value)


def test_another_precision(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, **{"img/cls": np.zeros((1, 1, 4), np.float16)})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="img/cls is float16, not float32"):
        read_checkpoint(path, "img/")


def test_a_checkpoint_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, **{"Transformer/encoder_norm/bias": np.zeros(4, np.float32)})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"holds Transformer/encoder_norm/bias, which is no part of a LiT checkpoint"):
        read_checkpoint(path, "img/")
