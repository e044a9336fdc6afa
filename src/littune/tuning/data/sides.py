"""The two sides of a training set: what turns the numbers of images or texts into a tower's outputs.

A locked tower is a table of its outputs. A tower that is trained runs over micro-batches, whose size follows from
what its graph takes: measured once, by counting what autograd keeps.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from littune.base.memory import total_memory
from littune.towers.image.tower import ImageTower
from littune.towers.image.trained import TrainedImageTower
from littune.towers.text.tokenizer import micro_batches
from littune.towers.text.tower import TextTower, Tokens
from littune.tuning.data.batches import Indices
from littune.tuning.data.pixels import PixelImages
from littune.tuning.step import Outputs, Plan

# A CPU gains nothing from more; its caches hold a few hundred texts less well, and they are padded more.
CPU_MICRO_TOKENS = 1024
# Also the batch over which an image tower from scratch takes the statistics of its batch norms.
MICRO_IMAGES = 32
_GPU_SHARE = 0.5

_GIB = 1 << 30


@dataclass(frozen=True)
class Table:
    """A locked tower: ``rows`` looks outputs up by number (and step, where views of an image differ), float32."""

    rows: Callable[[Indices, int], Float[Tensor, "n dim"]]

    @contextmanager
    def planned(self, numbers: Indices, step: int) -> Iterator[Plan]:
        """All at once."""
        yield Plan(outputs=lambda: iter([(np.arange(len(numbers)), self.rows(numbers, step))]))


@dataclass(frozen=True, kw_only=True)
class TunedTexts:
    """A text tower that is trained, over texts that were tokenised once.

    Attributes:
        tower: the tower, in eval mode.
        tokens: of every text.
        device: where the tower is.
        bfloat16: run the tower under bfloat16 autocast; its outputs, the loss and the gradients are float32.
        micro_tokens: tokens in a micro-batch, padding included.
        graph_tokens: with at most so many tokens in all, one pass keeps every micro-batch's graph.
        token_bytes: what the graph keeps of a token.
    """

    tower: TextTower
    tokens: Tokens
    device: torch.device
    bfloat16: bool = False
    micro_tokens: int = CPU_MICRO_TOKENS
    graph_tokens: int = 8192
    token_bytes: float = 0.0

    @classmethod
    def fitted(
        cls, tower: TextTower, tokens: Tokens, *, device: torch.device, bfloat16: bool, budget: int
    ) -> "TunedTexts":
        """With micro-batches and one pass or two as a budget of so many bytes allows."""
        side = cls(tower=tower, tokens=tokens, device=device, bfloat16=bfloat16)
        longest = np.argsort(-tokens.lengths.numpy(), kind="stable")[:16]
        counted = len(longest) * int(tokens.lengths.max())
        each = graph_bytes(tower, lambda: side.run(longest)) / counted
        fits = int(budget / each)
        micro = min(fits, CPU_MICRO_TOKENS if device.type == "cpu" else fits // 4)
        return replace(side, micro_tokens=max(1, micro), graph_tokens=fits, token_bytes=each)

    @contextmanager
    def planned(self, numbers: Indices, step: int) -> Iterator[Plan]:
        """Micro-batches by length; two passes when the whole does not fit. Words are gathered once for all."""
        lengths = self.tokens.lengths[torch.from_numpy(numbers)].numpy()
        cuts = micro_batches(lengths, self.micro_tokens)
        tokens = sum(len(cut) * int(lengths[cut[0]]) for cut in cuts)
        two_passes = tokens > self.graph_tokens
        kept = self.token_bytes * (min(tokens, self.micro_tokens) if two_passes else tokens)

        def outputs() -> Outputs:
            return ((cut, self.run(numbers[cut])) for cut in cuts)

        with self.tower.gathered_words(self.tokens.batch(torch.from_numpy(numbers))[0]):
            yield Plan(outputs=outputs, two_passes=two_passes, graph_bytes=int(kept))

    def run(self, numbers: Indices) -> Float[Tensor, "t dim"]:
        """The tower's outputs for one micro-batch."""
        ids, mask = self.tokens.batch(torch.from_numpy(numbers))
        # A context for every run: autocast's cache of weights must not span one without and one with a graph.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            pooled: Tensor = self.tower(ids.to(self.device), mask.to(self.device))
        return pooled


@dataclass(frozen=True, kw_only=True)
class TunedImages:
    """An image tower that is trained, on pixels.

    Attributes:
        tower: the tower.
        pixels: the training images, decoded and augmented when they are asked for.
        center: what is subtracted from its outputs, as from all embeddings, float32 (dim,).
        device: where the tower is.
        bfloat16: run the tower under bfloat16 autocast.
        micro_images: images in a micro-batch, or somewhat fewer, so that all are of about one size.
        graph_images: with at most so many images, one pass keeps every micro-batch's graph.
        image_bytes: what the graph keeps of an image.
    """

    tower: TrainedImageTower
    pixels: PixelImages
    center: Float[Tensor, " dim"]
    device: torch.device
    bfloat16: bool = False
    micro_images: int = MICRO_IMAGES
    graph_images: int = 256
    image_bytes: float = 0.0

    @classmethod
    def fitted(
        cls,
        tower: TrainedImageTower,
        pixels: PixelImages,
        *,
        center: Float[Tensor, " dim"],
        device: torch.device,
        bfloat16: bool,
        budget: int,
    ) -> "TunedImages":
        """With micro-batches and one pass or two as a budget of so many bytes allows."""
        side = cls(tower=tower, pixels=pixels, center=center, device=device, bfloat16=bfloat16)
        size = pixels.preprocess.size
        some = torch.zeros((2, 3, size, size), dtype=torch.uint8)
        each = graph_bytes(tower, lambda: side.run(some)) / len(some)
        fits = int(budget / each)
        return replace(side, micro_images=max(1, min(MICRO_IMAGES, fits)), graph_images=fits, image_bytes=each)

    @contextmanager
    def planned(self, numbers: Indices, step: int) -> Iterator[Plan]:
        """Micro-batches of one size, the next decoded while one runs; two passes when the whole does not fit."""
        cuts = np.array_split(np.arange(len(numbers)), -(-len(numbers) // self.micro_images))
        two_passes = len(numbers) > self.graph_images
        kept = self.image_bytes * (len(cuts[0]) if two_passes else len(numbers))

        def outputs() -> Outputs:
            ahead = self.pixels.ahead([numbers[cut] for cut in cuts], step)
            return ((cut, self.run(images)) for cut, images in zip(cuts, ahead, strict=True))

        yield Plan(outputs=outputs, two_passes=two_passes, graph_bytes=int(kept))

    def run(self, images: Tensor) -> Float[Tensor, "n dim"]:
        """The tower's outputs for one micro-batch of pixels."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            embeddings: Tensor = self.tower(images.to(self.device))
        return embeddings - self.center


def live_rows(tower: ImageTower, pixels: PixelImages) -> Callable[[Indices, int], Float[Tensor, "n dim"]]:
    """A locked image tower as a table whose rows are computed anew for every batch, on augmented pixels."""

    def rows(numbers: Indices, step: int) -> Float[Tensor, "n dim"]:
        cuts = np.array_split(numbers, -(-len(numbers) // MICRO_IMAGES))
        return torch.cat([tower.encode(images) for images in pixels.ahead(cuts, step)])

    return rows


def graph_bytes(module: nn.Module, run: Callable[[], Tensor]) -> int:
    """How much memory autograd keeps of ``run`` until its backward pass, the module's own weights not counted.

    The module runs in eval mode, so that no batch norm learns from it.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    training = module.training
    module.eval()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = run()
    module.train(training)
    return max(1, sum(kept.values()) + output.nbytes)


def graph_budget(device: torch.device) -> int:
    """The memory that a step's graph may take, in bytes; the same on every call, so that runs repeat exactly."""
    if device.type == "cuda":
        return int(_GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)
    return min(_GIB, total_memory() // 8)
