"""What torchrun's processes know of each other without a word."""

import pytest

from littune.base.distributed import ALONE, launch_name, launched, own_device

LAUNCH = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "TORCHELASTIC_RUN_ID": "none",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


def environment(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    for name, value in {**LAUNCH, **changes}.items():
        monkeypatch.setenv(name, value)


def test_a_rank_s_device_is_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCH:
        monkeypatch.delenv(name, raising=False)
    assert launched() == ALONE
    assert own_device("cuda") == "cuda"
    environment(monkeypatch)
    assert launched().rank == 1
    assert [own_device(name) for name in ("cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:0", "cpu"]


def test_ranks_of_one_launch_have_its_name_and_others_another(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch)
    name = launch_name()
    environment(monkeypatch, RANK="0", LOCAL_RANK="0")
    assert launch_name() == name
    environment(monkeypatch, MASTER_PORT="29501")
    assert launch_name() != name


def test_a_launch_on_one_machine_is_not_that_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for world, host in (("2", "one"), ("2", "two"), ("4", "one"), ("4", "two")):
        monkeypatch.setattr("littune.base.distributed.socket.gethostname", lambda host=host: host)
        environment(monkeypatch, WORLD_SIZE=world)
        names.add(launch_name())
    # Of a launch on two machines, the ranks on both have the same name.
    assert len(names) == 3
