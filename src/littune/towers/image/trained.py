"""TrainedImageTower: an image tower whose weights are trained (modes ``U`` and ``u`` of section 3.3).

Contrastive tuning runs an image twice (design: "An exact step at any batch size"), and both runs must agree: dropout
and stochastic depth are off. A pre-trained tower's batch normalisations keep the statistics of their pre-training,
with which images do not depend on their micro-batch; their scales and shifts are trained. From scratch there are no
statistics to keep: while it trains, each micro-batch is normalised by its own ("ghost" batch normalisation), and the
running statistics, which a locked tower uses, follow in the passes that keep a graph, so that every image counts
once. The image tower's outputs then hang on how a batch is cut, as with any batch normalisation.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from littune.base.errors import InputError
from littune.towers.image.tower import ImageTower, pooled


class TrainedImageTower(nn.Module):
    """A copy of an image tower, without its classifier, to be trained; ``locked`` gives what it is at present.

    Attributes:
        spec: the name that the tower was loaded by.
        trunk: the model, and where its outputs are found.
        preprocess: from a picture to ``forward``'s pixels.
        pooling: as the tower pools.
        dim: the dimensions of an embedding.
    """

    def __init__(self, tower: ImageTower, *, from_scratch: bool) -> None:
        """Copy ``tower``, which stays as it is.

        Args:
            tower: where to begin, on its device and in its precision, which ``locked`` towers take over.
            from_scratch: the weights were drawn, not pre-trained: batch normalisations learn their statistics.

        Raises:
            InputError: the tower has no weights that torch can train.
        """
        super().__init__()
        if not tower.trunk.trainable:
            raise InputError(f"image tower {tower.spec!r} cannot be trained: lock it, as in --locking LU")
        self.spec = tower.spec
        self.preprocess = tower.preprocess
        self.pooling = tower.pooling
        self.dim = tower.dim
        self._precision = tower.precision
        self.trunk = copy.deepcopy(tower.trunk)
        self.trunk.drop_head()
        self.trunk.to(tower.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._ghosts = _with_statistics(self.trunk) if from_scratch else []
        self.eval()
        self._unlock()

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.trunk.parameters()).device

    def train(self, mode: bool = True) -> "TrainedImageTower":
        """Without dropout in either mode; only batch normalisations from scratch know the difference."""
        super().train(False)
        self.training = mode
        for layer in self._ghosts:
            layer.train(mode)
        return self

    def forward(self, pixels: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n dim"]:
        """The embeddings of pictures that were preprocessed, float32, not of unit length; autocast is the caller's."""
        images = self.preprocess.normalize(pixels.to(self.device, non_blocking=True))
        with self._statistics():
            embeddings = pooled(self.trunk, images.to(memory_format=torch.channels_last), self.pooling, self.spec)
        return embeddings.float()

    def lock_statistics(self) -> None:
        """Lock the statistics of batch normalisations whose scale and shift are locked, which rules may do by name."""
        for layer in self._ghosts:
            if not any(weight.requires_grad for weight in layer.parameters()):
                layer.eval()
        self._ghosts = [layer for layer in self._ghosts if any(weight.requires_grad for weight in layer.parameters())]

    def locked(self) -> ImageTower:
        """A locked tower of the present weights, on the present device: another identity under the same spec."""
        tower = ImageTower(
            spec=self.spec, trunk=copy.deepcopy(self.trunk), preprocess=self.preprocess, pooling=self.pooling
        )
        return tower.to(self.device, self._precision)

    def _unlock(self) -> None:
        """Train the weights that an embedding hangs on: not those that another pooling would need."""
        self.trunk.requires_grad_(True)
        weights = list(self.trunk.parameters())
        pixels = torch.zeros((1, 3, self.preprocess.size, self.preprocess.size), dtype=torch.uint8)
        with torch.enable_grad():
            gradients = torch.autograd.grad(self(pixels).sum(), weights, allow_unused=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.requires_grad_(gradient is not None)

    @contextmanager
    def _statistics(self) -> Iterator[None]:
        """Let running statistics follow only in passes with a graph."""
        for layer in self._ghosts:
            layer.track_running_stats = torch.is_grad_enabled()
        try:
            yield
        finally:
            for layer in self._ghosts:
                layer.track_running_stats = True


def _with_statistics(module: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None]
