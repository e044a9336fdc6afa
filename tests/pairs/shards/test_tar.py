import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from littune.base.errors import InputError
from littune.pairs.shards import tar as tar_module
from littune.pairs.shards.tar import Group, count_groups, tar_groups

_GROUP_BYTES = (512 + 1024) + 2 * (512 + 512)
"""Of a group of ``shard``: a header and two blocks, twice a header and one block."""


def keys(groups: list[Group]) -> list[str]:
    return [group.key for group in groups]


@pytest.fixture
def shard(tmp_path: Path, write_tar) -> Path:
    members = [
        (f"{row}.{suffix}", data)
        for row in ("a", "b", "c")
        for suffix, data in (("jpg", b"image" * 200), ("txt", row.encode()), ("json", b"{}"))
    ]
    return write_tar(tmp_path / "0.tar", members)


def test_members_that_share_a_key_are_a_group(shard: Path) -> None:
    first, *_ = groups = list(tar_groups(shard))
    assert keys(groups) == ["a", "b", "c"]
    assert first == Group(
        key="a",
        suffixes=["jpg", "txt", "json"],
        images={"jpg": b"image" * 200},
        image_offset=512,
        data={"txt": b"a", "json": b"{}"},
    )
    assert count_groups(shard) == 3


def test_names_are_cut_at_their_first_dot(tmp_path: Path, write_tar) -> None:
    members = [("./d.e/a.SEG.png", b"s"), ("./d.e/a.JPG", b"i"), ("d.e/b.jpg", b"i"), ("plain", b"p")]
    groups = list(tar_groups(write_tar(tmp_path / "0.tar", members)))
    assert [(group.key, group.suffixes) for group in groups] == [
        ("d.e/a", ["seg.png", "jpg"]),
        ("d.e/b", ["jpg"]),
        ("plain", [""]),
    ]
    assert groups[0].images == {"jpg": b"i"}


def test_the_picture_of_a_group_lies_where_it_says(shard: Path) -> None:
    whole = shard.read_bytes()
    for group in tar_groups(shard):
        assert group.image_offset is not None
        assert whole[group.image_offset : group.image_offset + 1000] == group.images["jpg"]


def test_a_sparse_picture_does_not_lie_in_one_piece(tmp_path: Path) -> None:
    header = tarfile.TarInfo("a.jpg")
    header.size, header.pax_headers = 3, {"GNU.sparse.map": "0,3", "GNU.sparse.size": "5"}
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(header, io.BytesIO(b"abc"))
    (group,) = tar_groups(tmp_path / "0.tar")
    assert (group.images, group.image_offset) == ({"jpg": b"abc\0\0"}, None)


def test_only_what_is_wanted_is_read(shard: Path) -> None:
    assert next(iter(tar_groups(shard, wanted=("txt",)))).data == {"txt": b"a"}
    assert next(iter(tar_groups(shard, wanted=()))).images == {}


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path, write_tar) -> None:
    path = write_tar(tmp_path / "0.tar", [("._a.jpg", b"x"), ("x/.DS_Store", b"x"), ("a.jpg", b"i")])
    with tarfile.open(path, "a") as tar:
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    assert keys(list(tar_groups(path))) == ["a"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_not_followed(tmp_path: Path, kind: bytes) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        member = tarfile.TarInfo("a.jpg")
        member.type = kind
        member.linkname = str(secret)
        tar.addfile(member)
    (group,) = tar_groups(tmp_path / "0.tar")
    assert "a link or a device" in group.problem
    assert group.images == {}


def test_a_second_image_of_a_key_is_said(tmp_path: Path, write_tar) -> None:
    path = write_tar(tmp_path / "0.tar", [("a.jpg", b"i"), ("a.png", b"j"), ("a.txt", b"t")])
    (group,) = tar_groups(path)
    assert "several images (.jpg, .png): say which with --image-field" in group.problem
    (group,) = tar_groups(path, wanted=("png", "txt"))
    assert (group.problem, group.images) == ("", {"png": b"j"})


def test_a_suffix_that_returns_starts_a_new_group(tmp_path: Path, write_tar) -> None:
    path = write_tar(tmp_path / "0.tar", [("a.jpg", b"1"), ("a.txt", b"1"), ("a.jpg", b"2"), ("a.txt", b"2")])
    assert [group.images["jpg"] for group in tar_groups(path)] == [b"1", b"2"]


def test_members_over_the_limit_are_not_read(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_module, "MAX_IMAGE_BYTES", 999)
    groups = list(tar_groups(shard))
    assert [group.problem for group in groups] == ["its .jpg is 0 MB, over the limit of 0 MB"] * 3
    monkeypatch.setattr(tar_module, "MAX_IMAGE_BYTES", 1000)
    monkeypatch.setattr(tar_module, "MAX_TEXT_BYTES", 1)
    assert ".json is" in next(iter(tar_groups(shard))).problem


def test_a_sparse_member_may_promise_no_more_than_the_limit(tmp_path: Path) -> None:
    header = tarfile.TarInfo("a.jpg")
    header.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(300 << 20)}
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(header)
    (group,) = tar_groups(tmp_path / "0.tar")
    assert "300 MB, over the limit of 256 MB" in group.problem


def test_a_tar_that_is_cut_anywhere_gives_the_rows_before_and_says_so(shard: Path, tmp_path: Path) -> None:
    whole = shard.read_bytes()
    ends = [row * _GROUP_BYTES for row in (1, 2, 3)]
    for cut in range(512, ends[-1], 300):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        *before, last = tar_groups(tmp_path / "cut.tar")
        num_whole = sum(cut >= end for end in ends)
        assert [group.problem for group in before] == [""] * len(before)
        assert keys(before)[:num_whole] == ["a", "b", "c"][:num_whole], cut
        assert "truncated" in last.problem
        assert "copy it anew" in last.problem


def test_a_tar_without_an_end_mark_gives_its_rows_and_says_so(shard: Path) -> None:
    end = 3 * _GROUP_BYTES
    shard.write_bytes(shard.read_bytes()[:end])
    *before, last = tar_groups(shard)
    assert keys(before) == ["a", "b", "c"]
    assert last.key == f"byte {end}"
    assert "no end mark" in last.problem


def test_damage_in_the_middle_is_said(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    data[_GROUP_BYTES : _GROUP_BYTES + 512] = b"\xff" * 512
    shard.write_bytes(data)
    first, last = tar_groups(shard)
    assert (first.key, first.problem) == ("a", "")
    assert last.key == f"byte {_GROUP_BYTES}"
    assert "damaged here: no valid header" in last.problem


@pytest.mark.parametrize("data", [b"", b"no tar" * 500, b"\x1f\x8b" + bytes(2000)])
def test_what_is_no_tar_is_said(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "0.tar").write_bytes(data)
    (group,) = tar_groups(tmp_path / "0.tar")
    assert group.key == "byte 0"
    assert "truncated or damaged here" in group.problem


def test_a_tar_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0.tar cannot be read: No such file"):
        list(tar_groups(tmp_path / "0.tar"))


def test_names_that_are_no_utf8_can_be_written_as_utf8(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        member = tarfile.TarInfo("grün.jpg")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"i"))
    (group,) = tar_groups(tmp_path / "0.tar")
    assert group.key.encode() == b"gr\\xfcn"


def test_memory_does_not_grow_with_the_tar(tmp_path: Path, write_tar) -> None:
    def peak(num_rows: int) -> int:
        rows = ((f"{row:06d}.{suffix}", bytes(4000)) for row in range(num_rows) for suffix in ("jpg", "txt"))
        path = write_tar(tmp_path / "0.tar", rows)
        tracemalloc.start()
        for _ in tar_groups(path):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(10)
    assert peak(1000) < peak(100) + 20_000
