"""What every test shares: no network, one torch thread, and where the real data lie."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tests.typecheck  # noqa: F401 (jaxtyping's hook finds it by this name)

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITTUNE_CACHE", str(tmp_path_factory.mktemp("littune-cache")))
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data that LITTUNE_DATA names; the test skips where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("LITTUNE_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no real data: LITTUNE_DATA={path} is no folder")
    return path
