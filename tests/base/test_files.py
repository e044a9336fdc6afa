"""Writes are whole or absent; a folder is one process's at a time."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from littune.base.errors import InputError, LittuneError
from littune.base.files import (
    commit_lock,
    fingerprint_of_file,
    folder_lock,
    read_json,
    sha256_of_file,
    write_atomic,
    write_bytes,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def half(file: BinaryIO) -> None:
        file.write(b"ne")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_atomic(path, half)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LittuneError, match="no space left on the disk for .*a.bin"):
        write_bytes(tmp_path / "a.bin", b"new")
    assert not list(tmp_path.iterdir())


def test_json_round_trip_and_what_is_no_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, None]})
    assert read_json(tmp_path / "a.json") == {"é": [1, None]}
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.json").write_text("[]")
    for name, message in (("b", "not valid JSON"), ("c", "no JSON object"), ("d", "does not exist")):
        with pytest.raises(InputError, match=message):
            read_json(tmp_path / f"{name}.json")


def test_fingerprint_sees_size_head_and_tail(tmp_path: Path) -> None:
    path = tmp_path / "big"
    content = bytearray(3 << 20)
    marks = set()
    for place in (None, 0, len(content) - 1):
        if place is not None:
            content[place] ^= 1
        path.write_bytes(content)
        marks.add(fingerprint_of_file(path))
    path.write_bytes(content + b"x")
    marks.add(fingerprint_of_file(path))
    assert len(marks) == 4
    assert sha256_of_file(path) != marks.pop()


def test_a_folder_is_one_process_s_until_that_process_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from littune.base.files import folder_lock\n"
        f"with folder_lock(Path({str(tmp_path)!r})): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdin is not None
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LittuneError, match="in use by another"), folder_lock(tmp_path):
            pass
        holder.kill()
    with folder_lock(tmp_path):
        pass


def test_a_folder_is_one_group_s_at_a_time(tmp_path: Path) -> None:
    def refuses(group: str) -> bool:
        try:
            with folder_lock(tmp_path, group):
                return False
        except LittuneError:
            return True

    with folder_lock(tmp_path, "launch 1"):
        with folder_lock(tmp_path, "launch 1"):
            assert refuses("")
        assert refuses("launch 2")
        assert refuses("")
        assert not refuses("launch 1")
    assert not refuses("launch 2")
    with folder_lock(tmp_path):
        assert refuses("launch 2")
    assert not refuses("")


def test_commits_take_turns(tmp_path: Path) -> None:
    order: list[str] = []

    def commit() -> None:
        with commit_lock(tmp_path):
            order.append("second")

    with commit_lock(tmp_path):
        other = threading.Thread(target=commit)
        other.start()
        time.sleep(0.05)
        order.append("first")
    other.join()
    assert order == ["first", "second"]
