"""Preprocessing for open_clip, which resizes to what is seen and cuts nothing off but the longer side's ends."""

from littune.towers.image.preprocess import Preprocess

_RESIZE_MODES = {"short": "shortest", "stretch": "squash"}
# The closest that it has.
_INTERPOLATIONS = {"bicubic": "bicubic", "bilinear": "bilinear", "lanczos": "bicubic", "nearest": "bilinear"}


def preprocess_settings(preprocess: Preprocess) -> dict[str, object]:
    """``preprocess_cfg``, as close as open_clip comes."""
    return {
        "size": preprocess.size,
        "mode": "RGB",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": _INTERPOLATIONS[preprocess.interpolation],
        "resize_mode": _RESIZE_MODES[preprocess.fit],
    }


def exact_transform(preprocess: Preprocess) -> str | None:
    """Python code for the preprocessing itself, by torchvision; None where open_clip's settings say it all."""
    if preprocess.resize == preprocess.size and _INTERPOLATIONS[preprocess.interpolation] == preprocess.interpolation:
        return None
    side = preprocess.resize
    resized = f"{side}" if preprocess.fit == "short" else f"({side}, {side})"
    mode = f"transforms.InterpolationMode.{preprocess.interpolation.upper()}"
    steps = [
        f"transforms.Resize({resized}, interpolation={mode})",
        f"transforms.CenterCrop({preprocess.size})",
        "transforms.ToTensor()",
        f"transforms.Normalize({list(preprocess.mean)}, {list(preprocess.std)})",
    ]
    return "transforms.Compose([\n    " + ",\n    ".join(steps) + ",\n])"
