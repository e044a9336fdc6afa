import io
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from littune.base.errors import InputError
from littune.pairs import decode, open_pairs
from littune.pairs.images import index_images
from littune.towers.image.augment import augmented
from littune.towers.image.preprocess import Preprocess
from littune.tuning.data.pixels import PixelImages

PREPROCESS = Preprocess(size=16, resize=20, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
NUM = 12


def encoded(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(path: Path, images: list[bytes]) -> str:
    with tarfile.open(path, "w") as tar:
        for number, image in enumerate(images):
            for suffix, data in (("png", image), ("txt", b"noise")):
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return str(path)


def images_of(source: str, folder: Path, augment: str = "inception", *, seed: int = 7, workers: int = 3) -> PixelImages:
    index = index_images(open_pairs(source), spill=folder / "spill")
    return PixelImages(index=index, preprocess=PREPROCESS, augment=augment, flip=True, seed=seed, workers=workers)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write(tmp_path / "0.tar", [encoded(number) for number in range(NUM)])


@pytest.fixture
def images(source: str, tmp_path: Path) -> PixelImages:
    return images_of(source, tmp_path)


def test_the_pixels_are_those_of_the_augmented_pictures(images: PixelImages) -> None:
    numbers = np.array([3, 0, 11, 3])
    expected = [
        augmented(
            decode(encoded(number)), PREPROCESS, np.random.default_rng([7, 5, number]), augment="inception", flip=True
        )
        for number in numbers.tolist()
    ]
    pixels = images.pixels(numbers, 5)
    assert pixels.dtype == torch.uint8 and pixels.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, torch.stack(expected))


def test_an_images_pixels_hang_on_seed_step_and_number_alone(images: PixelImages, source: str, tmp_path: Path) -> None:
    numbers = np.arange(NUM)
    pixels = images.pixels(numbers, 5)
    order = np.random.default_rng(0).permutation(NUM)
    assert torch.equal(images.pixels(order, 5), pixels[torch.from_numpy(order)])
    assert torch.equal(images_of(source, tmp_path, workers=1).pixels(numbers, 5), pixels)
    for other in (images.pixels(numbers, 6), images_of(source, tmp_path, seed=8).pixels(numbers, 5)):
        assert not any(torch.equal(a, b) for a, b in zip(pixels, other, strict=True))


def test_one_cut_comes_after_the_other(images: PixelImages) -> None:
    cuts = [np.array([4, 2, 9]), np.array([1]), np.array([], np.int64), np.array([0, 1, 2, 3, 4])]
    ahead = list(images.ahead(cuts, 2))
    assert [len(pixels) for pixels in ahead] == [3, 1, 0, 5]
    assert all(torch.equal(pixels, images.pixels(cut, 2)) for cut, pixels in zip(cuts, ahead, strict=True))
    assert list(images.ahead([], 2)) == []


def test_the_next_cut_is_prepared_meanwhile(images: PixelImages, monkeypatch: pytest.MonkeyPatch) -> None:
    done, view = threading.Semaphore(0), PixelImages._view

    def counted(self: PixelImages, image: tuple[int, int]) -> torch.Tensor:
        pixels = view(self, image)
        done.release()
        return pixels

    monkeypatch.setattr(PixelImages, "_view", counted)
    ahead = images.ahead([np.arange(4), np.arange(4, 8), np.arange(8, 12)], 0)
    next(ahead)
    # The cut that came and the one after it are done without another call.
    assert all(done.acquire(timeout=10) for _ in range(8))
    # Those of the third wait for room.
    assert not done.acquire(timeout=0.2)
    assert len(list(ahead)) == 2


def test_leaving_early_stops_the_threads(images: PixelImages) -> None:
    before = threading.active_count()
    ahead = images.ahead([np.arange(4)] * 50, 0)
    next(ahead)
    ahead.close()
    for thread in threading.enumerate():
        if thread.name.startswith("littune-"):
            thread.join(timeout=10)
    assert threading.active_count() <= before


def test_without_augmentation_they_are_those_that_embed_sees(source: str, tmp_path: Path) -> None:
    index = index_images(open_pairs(source), spill=tmp_path / "spill")
    images = PixelImages(index=index, preprocess=PREPROCESS, augment="none", flip=False, seed=0, workers=2)
    expected = torch.stack([PREPROCESS(decode(encoded(number))) for number in range(NUM)])
    assert torch.equal(images.pixels(np.arange(NUM), 0), expected)
    assert torch.equal(images.pixels(np.arange(NUM), 1), expected)


def test_a_damaged_picture_stops_where_it_comes_and_is_named(tmp_path: Path) -> None:
    damaged = [encoded(number) for number in range(NUM)]
    damaged[6] = damaged[6][:-300]
    images = images_of(write(tmp_path / "0.tar", damaged), tmp_path)
    ahead = images.ahead([np.arange(4), np.arange(4, 8)], 0)
    assert len(next(ahead)) == 4
    with pytest.raises(InputError, match=r"^6 in 0.tar: the image is damaged or truncated"):
        next(ahead)


def test_photographs_are_read_from_where_they_lie(data_dir: Path, tmp_path: Path) -> None:
    source = str(data_dir / "flickr8k-1k" / "val-*.tar")
    images = images_of(source, tmp_path)
    numbers = np.random.default_rng(0).permutation(len(images.index))[:40]
    first = images.pixels(numbers, 3)
    assert torch.equal(torch.cat(list(images.ahead(np.array_split(numbers, 3), 3))), first)
    assert first.float().std() > 30 and not (tmp_path / "spill").exists()
