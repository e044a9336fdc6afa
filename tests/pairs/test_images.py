import io
import json
import pickle
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from littune.base.errors import InputError, LittuneError, MismatchError
from littune.pairs import BadSample, Pair, Source, decode, iter_samples, open_pairs, read_encoded
from littune.pairs.images import ImageIndex, index_images
from littune.pairs.rows import PartList

COLORS = ["red", "green", "blue", "white", "black", "yellow", "cyan"]

Lay = Callable[[Path, list[bytes]], str]


def lay_tars(folder: Path, images: list[bytes]) -> str:
    for shard, numbers in enumerate((range(len(images))[:3], range(len(images))[3:])):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in numbers:
                for suffix, data in (("txt", f"image {number}".encode()), ("png", images[number])):
                    member = tarfile.TarInfo(f"{number}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return str(folder / "*.tar")


def lay_folder(folder: Path, images: list[bytes]) -> str:
    for number, image in enumerate(images):
        (folder / f"{number}.png").write_bytes(image)
        (folder / f"{number}.txt").write_text(f"image {number}")
    return str(folder)


def lay_csv(folder: Path, images: list[bytes]) -> str:
    lay_folder(folder, images)
    lines = ["image,caption", *(f"{number}.png,image {number}" for number in range(len(images)))]
    (folder / "t.csv").write_text("\n".join(lines))
    return str(folder / "t.csv")


def lay_parquet(folder: Path, images: list[bytes]) -> str:
    captions = [f"image {number}" for number in range(len(images))]
    pq.write_table(pa.table({"image": images, "caption": captions}), folder / "t.parquet")
    return str(folder / "t.parquet")


def lay_hub(folder: Path, images: list[bytes]) -> str:
    datasets = pytest.importorskip("datasets")
    captions = [f"image {number}" for number in range(len(images))]
    rows = {"image": [{"bytes": image, "path": None} for image in images], "caption": captions}
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(folder / "set")
    return f"hf:{folder / 'set'}"


LAYOUTS = [lay_tars, lay_folder, lay_csv, lay_parquet, lay_hub]


@pytest.fixture
def images(picture) -> list[bytes]:
    return [picture(color, size=(8 + number, 6)) for number, color in enumerate(COLORS)]


@pytest.fixture
def open_laid(tmp_path: Path) -> Callable[[Lay, list[bytes]], Source]:
    def open_it(lay: Lay, images: list[bytes]) -> Source:
        (tmp_path / "data").mkdir()
        return open_pairs(lay(tmp_path / "data", images))

    return open_it


@pytest.fixture
def spill(tmp_path: Path) -> Path:
    return tmp_path / "run" / "spill"


def reasons(index: ImageIndex) -> list[str]:
    return [row.reason for row in index.skipped]


@pytest.mark.parametrize("lay", LAYOUTS)
def test_every_image_is_read_by_its_number(lay: Lay, open_laid, images: list[bytes], spill: Path) -> None:
    source = open_laid(lay, images)
    index = index_images(source, spill=spill)
    pairs = [sample for sample in iter_samples(source) if isinstance(sample, Pair)]
    assert len(index) == len(pairs) == len(images)
    assert list(index.texts) == [pair.texts for pair in pairs]
    assert not index.skipped and index.spec == source.spec
    for number in np.random.default_rng(0).permutation(len(images)).tolist():
        assert index.read(number) == read_encoded(pairs[number].image) == images[number]
        assert index.name(number) == f"{pairs[number].key} in {pairs[number].source}"
        assert index.picture(number).tobytes() == decode(images[number]).tobytes()
    assert spill.exists() == (lay in (lay_parquet, lay_hub))


def test_only_the_spill_holds_copies(open_laid, images: list[bytes], spill: Path) -> None:
    index = index_images(open_laid(lay_parquet, images), spill=spill)
    assert spill.read_bytes() == b"".join(images)
    assert list(index.paths) == [str(spill)] and set(index.file.tolist()) == {0}


@pytest.mark.parametrize("lay", LAYOUTS)
def test_what_is_no_picture_by_its_header_is_left_out_and_named(
    lay: Lay, open_laid, images: list[bytes], spill: Path
) -> None:
    images[1], images[4] = b"<html>", images[4][:20]
    source = open_laid(lay, images)
    index = index_images(source, spill=spill)
    assert len(index) == len(images) - 2
    assert [index.read(number) for number in range(5)] == [image for n, image in enumerate(images) if n not in (1, 4)]
    assert [texts[0] for texts in index.texts] == [f"image {number}" for number in (0, 2, 3, 5, 6)]
    assert "none of JPEG" in reasons(index)[0] and "damaged or truncated" in reasons(index)[1]
    skipped = [sample for number, sample in enumerate(iter_samples(source)) if number in (1, 4)]
    assert [(row.key, row.source) for row in index.skipped] == [(row.key, row.source) for row in skipped]


def test_rows_that_the_source_refuses_are_kept_with_its_reasons(tmp_path: Path, spill: Path, picture) -> None:
    (tmp_path / "t.csv").write_text("image,caption\na.png,one\nhttp://x/b.png,two\nc.png,\nd.png,four\n")
    (tmp_path / "a.png").write_bytes(picture())
    source = open_pairs(tmp_path / "t.csv")
    index = index_images(source, spill=spill)
    assert list(index.texts) == [("one",)]
    refused = [sample for sample in iter_samples(source) if isinstance(sample, BadSample)]
    assert [row for row in index.skipped if row in refused] == refused and len(refused) == 2
    assert [reason for reason in reasons(index) if "d.png cannot be read: No such file" in reason]


def test_a_sparse_member_of_a_tar_is_copied(tmp_path: Path, spill: Path, picture) -> None:
    image = picture("black", form="BMP")
    zeros = len(image) - len(image.rstrip(b"\0"))
    header = tarfile.TarInfo("a.bmp")
    header.size = len(image) - zeros
    header.pax_headers = {"GNU.sparse.map": f"0,{header.size}", "GNU.sparse.size": str(len(image))}
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(header, io.BytesIO(image[: header.size]))
        caption = tarfile.TarInfo("a.txt")
        caption.size = 5
        tar.addfile(caption, io.BytesIO(b"black"))
    index = index_images(open_pairs(tmp_path / "0.tar"), spill=spill)
    assert zeros > 100 and index.read(0) == image == spill.read_bytes()


def test_a_picture_that_turns_out_to_be_damaged_is_named_with_what_to_do(
    open_laid, images: list[bytes], spill: Path, picture
) -> None:
    images[2] = picture("red", size=(90, 90))[:-60]
    index = index_images(open_laid(lay_tars, images), spill=spill)
    assert index.read(2) == images[2]
    with pytest.raises(InputError, match=r"^2 in 0.tar: the image is damaged .*remove it .*embed .*\*.tar"):
        index.picture(2)


def test_a_file_that_changed_or_went_is_named(open_laid, images: list[bytes], spill: Path, tmp_path: Path) -> None:
    index = index_images(open_laid(lay_folder, images), spill=spill)
    (tmp_path / "data" / "1.png").write_bytes(images[1][:-1])
    (tmp_path / "data" / "2.png").unlink()
    with pytest.raises(InputError, match=r"^1 in data: .*1.png is cut off: the file has changed; restore it"):
        index.read(1)
    with pytest.raises(InputError, match=r"^2 in data: .*2.png cannot be read: No such file.*; restore it"):
        index.read(2)


def test_the_fingerprint_follows_the_source(open_laid, images: list[bytes], spill: Path, tmp_path: Path) -> None:
    source = open_laid(lay_tars, images)
    first, again = (index_images(source, spill=spill).fingerprint for _ in range(2))
    (tmp_path / "data" / "1.tar").unlink()
    other = index_images(open_pairs(source.spec), spill=spill).fingerprint
    assert first == again != other


def test_an_index_can_be_sent_to_another_process(open_laid, images: list[bytes], spill: Path) -> None:
    index = pickle.loads(pickle.dumps(index_images(open_laid(lay_parquet, images), spill=spill)))
    assert [index.read(number) for number in range(len(index))] == images


def test_labelled_images_are_an_error(tmp_path: Path, spill: Path, picture) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(picture())
    with pytest.raises(InputError, match=r"holds labelled images \(a folder a class, labelled\), and training takes"):
        index_images(open_pairs(tmp_path), spill=spill)


def test_a_source_without_a_usable_pair_is_an_error(open_laid, spill: Path) -> None:
    source = open_laid(lay_tars, [b"no", b"nor this"])
    with pytest.raises(InputError, match=r"usable image: all 2 were skipped, the first 0 in 0.tar: the image is none"):
        index_images(source, spill=spill)
    empty = PartList(spec="x", kind="fake", all_parts=(), count=lambda: 0)
    with pytest.raises(InputError, match=r"^x \(fake\) holds no images; check the spec"):
        index_images(empty, spill=spill)


class ChangingPart:
    """A part of one image that is another at each look."""

    name = "changing"

    def __init__(self, image: bytes) -> None:
        self.image, self.looks = image, 0

    def fingerprint(self) -> str:
        self.looks += 1
        return str(self.looks)

    def samples(self):
        yield Pair(key="k", source=self.name, image=self.image, texts=("t",))


def test_a_part_that_changes_while_it_is_read_is_an_error(spill: Path, picture) -> None:
    source = PartList(spec="x", kind="fake", all_parts=(ChangingPart(picture()),), count=lambda: 1)
    with pytest.raises(MismatchError, match="changing was changed while it was read"):
        index_images(source, spill=spill)


def test_a_spill_that_cannot_be_written_is_one_clear_line(open_laid, images: list[bytes], tmp_path: Path) -> None:
    source = open_laid(lay_parquet, images)
    (tmp_path / "file").touch()
    with pytest.raises(LittuneError, match=r"cannot copy images into .*file/spill: .*; make room there"):
        index_images(source, spill=tmp_path / "file" / "spill")
    if Path("/dev/full").exists():
        with pytest.raises(LittuneError, match="cannot copy images into /dev/full: No space left on device"):
            index_images(source, spill=Path("/dev/full"))


@pytest.mark.parametrize("lay", [lay_tars, lay_folder])
def test_memory_does_not_grow_with_the_bytes_of_images(lay: Lay, open_laid, spill: Path, picture) -> None:
    images = [picture("red") + bytes(100_000) for _ in range(100)]
    source = open_laid(lay, images)
    assert source.num_samples == 100
    tracemalloc.start()
    index = index_images(source, spill=spill)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == 100 and held < 150_000 and peak < 1_500_000


def test_real_photographs(data_dir: Path, spill: Path) -> None:
    source = open_pairs(str(data_dir / "flickr8k-1k" / "val-*.tar"))
    index = index_images(source, spill=spill)
    pairs = [sample for sample in iter_samples(source) if isinstance(sample, Pair)]
    assert len(index) == len(pairs) == 100 and not index.skipped and not spill.exists()
    assert json.dumps(index.texts) == json.dumps([pair.texts for pair in pairs])
    assert all(index.read(number) == pair.image for number, pair in enumerate(pairs))
