"""In which precision towers compute: bfloat16 (autocast) where the hardware gains from it, float32 elsewhere."""

import torch

from littune.base.errors import InputError, first_line


def usable_device(name: str | torch.device) -> torch.device:
    """The device of this name, once something has been put there.

    Raises:
        InputError: there is no such device here.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        hint = "did you mean 'cuda'?" if "gpu" in str(name).lower() else first_line(error)
        raise InputError(f"device {str(name)!r} cannot be used here: {hint}") from error


def wants_bfloat16(device: str | torch.device, precision: str) -> bool:
    """Whether towers on ``device`` run under bfloat16 autocast.

    Args:
        device: where the towers are.
        precision: "float32", "bfloat16", or "auto" for what the hardware computes fast.

    Raises:
        InputError: there is no such precision.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise InputError(f"precision {precision!r} is unknown; choose auto, float32 or bfloat16")
    if precision != "auto":
        return precision == "bfloat16"
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without these instructions a CPU emulates bfloat16, slower than it computes in float32.
    return kind == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
