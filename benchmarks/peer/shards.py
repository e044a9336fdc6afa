"""Tar shards in which each (photo, caption) is a pair of its own, for a trainer that reads one caption a photo.

One shard for the first captions of all photos, one for the second, and so on: a photo's pairs lie far apart, so that
a batch seldom holds two of them, which a loss with one positive a row would take for negatives.
"""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path


def write_pair_shards(shards: Sequence[Path], out: Path) -> list[Path]:
    """Write the pairs of ``shards`` (KEY.jpg, KEY.json with "captions") as shards under ``out``."""
    photos = [photo for shard in shards for photo in _photos(shard)]
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(max(len(captions) for _, _, captions in photos)):
        paths.append(out / f"pairs-{index:05}.tar")
        with tarfile.open(paths[-1], "w") as tar:
            for key, jpeg, captions in photos:
                if index < len(captions):
                    _add(tar, f"{key}-{index}.jpg", jpeg)
                    _add(tar, f"{key}-{index}.txt", captions[index].encode())
    return paths


def _photos(shard: Path) -> list[tuple[str, bytes, list[str]]]:
    with tarfile.open(shard) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}
    keys = sorted(name.removesuffix(".jpg") for name in members if name.endswith(".jpg"))
    return [(key, members[f"{key}.jpg"], json.loads(members[f"{key}.json"])["captions"]) for key in keys]


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
