"""ImageTower: a locked image model with its preprocessing, its pooling and its identity (sections 3.1 and 4).

Every source of towers hands over a ``Trunk``, a model whose pooled output and tokens can be asked for; what is made
of them here is the same for all. The trunk is locked: in eval mode and without gradients.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from littune.base.errors import InputError, first_line
from littune.base.files import write_bytes
from littune.towers.image.folding import folded
from littune.towers.image.preprocess import Preprocess as Preprocess
from littune.towers.precision import usable_device, wants_bfloat16

POOLINGS = ("own", "cls", "mean", "cls+mean")
BUNDLE_FORMAT, BUNDLE_VERSION = "littune-image-tower", "2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Classifier:
    """The last layer of a supervised tower: one direction a class, in the space of the tower's own pooled output."""

    weight: Float[Tensor, "classes dim"]
    bias: Float[Tensor, " classes"] | None
    label_set: str
    """timm's name of the classes, such as "imagenet-1k"; empty where they are not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What must be the same for embeddings to belong together."""

    weights: str
    """SHA-256 of the trunk's weights; the classifier is left out."""
    pooling: str
    dim: int
    preprocess: str = ""
    """Digest of the preprocessing; empty where no picture was seen, as in prototypes."""

    def differences(self, other: "Identity") -> list[str]:
        """What keeps embeddings of the two apart, in words; empty where they belong together."""
        found = []
        if self.weights != other.weights:
            found.append(f"other weights ({self.weights[:12]}… and {other.weights[:12]}…)")
        if self.pooling != other.pooling:
            found.append(f"another pooling ({self.pooling} and {other.pooling})")
        if self.dim != other.dim:
            found.append(f"another number of dimensions ({self.dim} and {other.dim})")
        if self.preprocess and other.preprocess and self.preprocess != other.preprocess:
            found.append(f"another preprocessing ({self.preprocess[:12]}… and {other.preprocess[:12]}…)")
        return found

    def to_dict(self) -> dict[str, object]:
        """JSON values, for ``from_dict``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Identity":
        """What ``to_dict`` gave.

        Raises:
            InputError: a key is missing or unknown.
        """
        if values.keys() != {field.name for field in fields(cls)}:
            raise InputError(f"a tower's identity with the keys {sorted(values)} is not littune's")
        return cls(**values)


class Trunk(nn.Module, ABC):
    """A model, and where its pooled output and its tokens are found. A source of towers makes one.

    Attributes:
        model: the model itself, with its classifier where it has one.
        recipe: JSON values from which ``image_sources`` builds the model again, without its weights; None where
            nothing can.
        trainable: whether the model has weights that torch can train.
        runtime: what computes.
    """

    trainable = True
    runtime = "torch"

    def __init__(self, model: nn.Module, recipe: Mapping[str, object] | None) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe

    @abstractmethod
    def own(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """The output as the model itself pools it, before its classifier."""

    @abstractmethod
    def tokens(self, images: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n d"] | None, Float[Tensor, "n t d"]]:
        """The class token, where there is one, and the outputs of the patches or places."""

    def head(self) -> list[nn.Module]:
        """The layers that the identity leaves out: the classifier."""
        return []

    def classifier(self) -> Classifier | None:
        """The classifier, where it is one direction a class on ``own``."""
        return None

    def drop_head(self) -> None:
        """Take the layers of ``head`` out of the model, and out of the recipe."""

    def digest(self) -> str:
        """SHA-256 over the names, kinds, shapes and bytes of the weights, without those of the classifier."""
        left_out = {id(parameter) for layer in self.head() for parameter in layer.parameters()}
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict(keep_vars=True).items()):
            if id(value) not in left_out:
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


class ImageTower:
    """A locked image model: pictures in, embeddings out.

    Attributes:
        spec: the name it was loaded by.
        trunk: the model, locked, and where its outputs are found.
        module: the model itself.
        preprocess: from a picture to ``encode``'s pixels.
        pooling: "own", "cls", "mean" or "cls+mean".
        dim: the dimensions of an embedding.
        identity: what must match for embeddings to belong together.
        classifier: a supervised tower's last layer, where ``pooling`` is "own".
        device: where it runs.
        precision: "float32", or "bfloat16" for bfloat16 autocast.
    """

    def __init__(self, *, spec: str, trunk: Trunk, preprocess: Preprocess, pooling: str = "own") -> None:
        if pooling not in POOLINGS:
            raise InputError(f"pooling {pooling!r} is unknown; choose one of {', '.join(POOLINGS)}")
        self.spec = spec
        self.module = trunk.model
        self.preprocess = preprocess
        self.pooling = pooling
        self.trunk = trunk.eval().requires_grad_(False)
        # What runs; folding and channels-last give the same embeddings to rounding, sooner.
        self._runner = folded(self.trunk, self._try_out)
        self.dim = self._try_out(self._runner).shape[1]
        self.identity = Identity(
            weights=trunk.digest(), pooling=pooling, dim=self.dim, preprocess=_digest(preprocess.to_dict())
        )
        classifier = trunk.classifier() if pooling == "own" else None
        self.classifier = classifier if classifier and classifier.weight.shape[1] == self.dim else None
        self.to(_device_of(trunk))

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        *,
        preprocess: Preprocess,
        name: str,
        pooling: str = "own",
        num_prefix_tokens: int = 0,
    ) -> "ImageTower":
        """A tower made from any module, which is locked: put into eval mode, its gradients switched off.

        Args:
            module: takes normalised images, float32 (n, 3, h, w); gives (n, d) for pooling "own", and tokens
                (n, t, d) or a map (n, d, h, w) for the others.
            preprocess: from a picture to the module's pixels.
            name: what the tower is called in messages and stores.
            pooling: "own", "cls", "mean" or "cls+mean".
            num_prefix_tokens: how many tokens come before those of the patches; the first is the class token.

        Raises:
            InputError: the module does not take such images, or gives no such output.
        """
        trunk = _ModuleTrunk(module, num_prefix_tokens)
        return cls(spec=name, trunk=trunk, preprocess=preprocess, pooling=pooling)

    def to(self, device: str | torch.device, precision: str = "auto") -> "ImageTower":
        """Move the tower, and choose the precision that it runs in.

        Args:
            device: such as "cpu" or "cuda".
            precision: "float32", "bfloat16" (autocast), or "auto" for bfloat16 where the hardware has it.

        Raises:
            InputError: there is no such device or precision.
        """
        self.device = usable_device(device)
        self._runner.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Another runtime computes as its graph says.
        bfloat16 = wants_bfloat16(device, precision) and self.trunk.runtime == "torch"
        self.precision = "bfloat16" if bfloat16 else "float32"
        return self

    def encode(self, pixels: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n dim"]:
        """Embed a batch of pictures that ``preprocess`` prepared; float32, on the CPU, not of unit length."""
        images = self.preprocess.normalize(pixels.to(self.device, non_blocking=True))
        with torch.no_grad(), self._autocast():
            embeddings = pooled(self._runner, images.to(memory_format=torch.channels_last), self.pooling, self.spec)
        return embeddings.float().cpu()

    def save_weights(self, path: Path) -> None:
        """Write the model to a safetensors file that ``load_image_tower(spec, weights=path)`` loads.

        Raises:
            InputError: the tower is one that littune cannot build again, such as a module of the user's.
        """
        if self.trunk.recipe is None:
            raise InputError(f"image tower {self.spec!r} cannot be bundled: littune could not build it again")
        about = {
            "format": BUNDLE_FORMAT,
            "version": BUNDLE_VERSION,
            "spec": self.spec,
            "pooling": self.pooling,
            "recipe": json.dumps(self.trunk.recipe),
            "preprocess": json.dumps(self.preprocess.to_dict()),
        }
        tensors = {name: value.cpu().contiguous() for name, value in self.module.state_dict().items()}
        write_bytes(path, safetensors.torch.save(tensors, metadata=about))

    def _try_out(self, trunk: Trunk) -> Float[Tensor, "1 d"]:
        """Embed a picture of noise, in float32."""
        shape = (1, 3, self.preprocess.size, self.preprocess.size)
        noise = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                return pooled(trunk, self.preprocess.normalize(noise.to(_device_of(trunk))), self.pooling, self.spec)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"image tower {self.spec!r} does not run on images of shape {shape}: {first_line(error)}"
            ) from error

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


class _ModuleTrunk(Trunk):
    """Any module of the user's."""

    def __init__(self, module: nn.Module, num_prefix_tokens: int) -> None:
        super().__init__(module, recipe=None)
        self.num_prefix_tokens = num_prefix_tokens

    def own(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        return self._output(images, (2,), "own")

    def tokens(self, images: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n d"] | None, Float[Tensor, "n t d"]]:
        output = self._output(images, (3, 4), "cls or mean")
        return split_tokens(output, num_prefix=self.num_prefix_tokens, has_class_token=self.num_prefix_tokens > 0)

    def _output(self, images: Tensor, ranks: tuple[int, ...], pooling: str) -> Tensor:
        output: object = self.model(images)
        if not isinstance(output, Tensor) or output.ndim not in ranks:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            wanted = "(n, d)" if ranks == (2,) else "(n, t, d) or (n, d, h, w)"
            raise ValueError(f"pooling {pooling} needs an output of shape {wanted}, the module gives {shape}")
        return output


def pooled(trunk: Trunk, images: Float[Tensor, "n 3 h w"], pooling: str, spec: str) -> Float[Tensor, "n d"]:
    """The output of ``trunk`` as ``pooling`` makes it.

    Raises:
        InputError: the tower, which is named ``spec``, has no class token to pool by.
    """
    if pooling == "own":
        return trunk.own(images)
    token, places = trunk.tokens(images)
    mean = places.float().mean(dim=1)
    if pooling == "mean":
        return mean
    if token is None:
        raise InputError(f"image tower {spec!r} has no class token; pool with own or mean")
    return token.float() if pooling == "cls" else torch.cat([token.float(), mean], dim=1)


def split_tokens(
    output: Tensor, *, num_prefix: int, has_class_token: bool
) -> tuple[Float[Tensor, "n d"] | None, Float[Tensor, "n t d"]]:
    """Take tokens (n, t, d) or a map (n, d, h, w) apart into the class token and the places."""
    if output.ndim == 4:
        return None, output.flatten(2).transpose(1, 2)
    return output[:, 0] if has_class_token else None, output[:, num_prefix:]


def _device_of(trunk: Trunk) -> torch.device:
    parameter = next(trunk.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _digest(values: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
