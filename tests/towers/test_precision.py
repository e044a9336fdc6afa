import pytest
import torch

from littune.base.errors import InputError
from littune.towers.precision import usable_device, wants_bfloat16


def test_what_is_asked_for_is_what_is_used():
    assert wants_bfloat16("cpu", "bfloat16")
    assert not wants_bfloat16("cpu", "float32")


@pytest.mark.parametrize("has_it", [True, False])
def test_auto_takes_what_the_cpu_computes_fast(monkeypatch: pytest.MonkeyPatch, has_it: bool):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert wants_bfloat16(torch.device("cpu"), "auto") == has_it


def test_an_unknown_precision_is_an_error_that_lists_the_known():
    with pytest.raises(InputError, match="'half' is unknown; choose auto, float32 or bfloat16"):
        wants_bfloat16("cpu", "half")


@pytest.mark.parametrize(("name", "message"), [("gpu", "did you mean 'cuda'?"), ("nonsense", "Expected one of cpu")])
def test_a_device_that_is_not_there_is_named(name: str, message: str):
    with pytest.raises(InputError, match=f"device {name!r} cannot be used here: {message}"):
        usable_device(name)
