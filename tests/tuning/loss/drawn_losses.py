"""Drawn global batches for the losses, easy and extreme, for test_streamed and the processes that it starts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from littune.base.distributed import ALONE, Ranks
from littune.tuning.loss.losses import sigmoid_loss, softmax_loss
from littune.tuning.loss.streamed import streamed_sigmoid_loss, streamed_softmax_loss

# Of images, texts, log temperature and, for the sigmoid loss, bias.
Loss = Callable[..., Tensor]

LOSSES = ("softmax", "sigmoid")
KINDS = ("any", "duplicates", "identical", "learned", "long")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A batch in float64, every number of which float32 holds exactly."""

    images: Tensor
    texts: Tensor
    mask: Tensor
    log_temperature: Tensor
    bias: Tensor

    @property
    def positives(self) -> Tensor:
        return self.mask.nonzero()

    def inputs(self, loss: str) -> list[Tensor]:
        inputs = [self.images, self.texts, self.log_temperature]
        return [*inputs, self.bias] if loss == "sigmoid" else inputs


def draw(kind: str, temperature: float, seed: int) -> Drawn:
    """Up to 30 images and texts, now and then one; every image and text has an answer, many have several."""
    random = torch.Generator().manual_seed(seed)
    num_images, num_texts, dim = (int(torch.randint(1, most, (), generator=random)) for most in (31, 31, 20))
    images, texts = (F.normalize(torch.randn(n, dim, generator=random), dim=1) for n in (num_images, num_texts))
    mask = torch.rand(num_images, num_texts, generator=random) < 0.05
    mask[torch.arange(num_images), torch.randint(num_texts, (num_images,), generator=random)] = True
    mask[torch.randint(num_images, (num_texts,), generator=random), torch.arange(num_texts)] = True
    if kind == "duplicates":
        images = images[torch.randint(num_images, (num_images,), generator=random)]
        texts = texts[torch.randint(num_texts, (num_texts,), generator=random)]
    elif kind == "identical":
        images, texts = images[:1].expand(num_images, dim), images[:1].expand(num_texts, dim)
    elif kind == "learned":
        # Every answer is right, by a wide margin: at a high temperature all gradients all but vanish.
        images = texts = torch.eye(num_images) + 0.01 * torch.randn(num_images, num_images, generator=random)
        mask = torch.eye(num_images, dtype=torch.bool)
    elif kind == "long":
        # Logits in the hundreds, where exp overflows.
        images, texts = 3 * images, 5 * texts
    numbers = (images, texts, torch.tensor(math.log(temperature)), torch.tensor(-10.0 if seed % 2 else -2.7))
    images, texts, log_temperature, bias = (number.double() for number in numbers)
    return Drawn(images=images, texts=texts, mask=mask, log_temperature=log_temperature, bias=bias)


def plain(loss: str, positives: Tensor) -> Loss:
    of = {"softmax": softmax_loss, "sigmoid": sigmoid_loss}[loss]
    return lambda images, texts, *scalars: of(images, texts, positives, *scalars)


def streamed(loss: str, positives: Tensor, max_cells: int, ranks: Ranks = ALONE) -> Loss:
    of = {"softmax": streamed_softmax_loss, "sigmoid": streamed_sigmoid_loss}[loss]
    return lambda images, texts, *scalars: of(images, texts, positives, *scalars, ranks=ranks, max_cells=max_cells)


def value_and_gradients(loss: Loss, inputs: Sequence[Tensor]) -> list[Tensor]:
    leaves = [one.clone().requires_grad_() for one in inputs]
    value = loss(*leaves)
    value.backward()
    assert all(leaf.grad is not None and leaf.grad.dtype == leaf.dtype for leaf in leaves)
    return [value.detach(), *(leaf.grad for leaf in leaves)]
