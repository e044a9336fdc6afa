"""The softmax loss over a global batch (section 3.1): every image picks its texts, every text its images.

An image may have several texts in the batch and a text several images, so the plain cross-entropy with the
diagonal as the answer would set an image against its own captions. Each image and each text counts once, and
its right answers share the target equally: the mean over them of -log p. Where every one has a single answer
this is CLIP's loss. (Two other definitions, -log of the sum of an image's answers and one that takes the other
answers out of each answer's denominator, gave the same recall within 0.3 points; this needs no mask.)
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def softmax_loss(
    images: Float[Tensor, "i d"],
    texts: Float[Tensor, "t d"],
    positives: Int[Tensor, "p 2"],
    log_temperature: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """The mean of the two directions' cross-entropies.

    Args:
        images: the batch's distinct images, unit rows.
        texts: the batch's distinct texts, unit rows.
        positives: the distinct pairs (position in ``images``, position in ``texts``) that belong together; every
            image and every text is in one at least.
        log_temperature: the logarithm of the factor on the cosines.
    """
    # Scaling the logits, not the images, saves the backward pass of locked images a product.
    logits = log_temperature.exp() * (images @ texts.T)
    image, text = positives.unbind(dim=1)
    of_positives = logits[image, text]
    return 0.5 * (
        _cross_entropy(logits.logsumexp(dim=1), of_positives, image)
        + _cross_entropy(logits.logsumexp(dim=0), of_positives, text)
    )


def _cross_entropy(
    normalizers: Float[Tensor, " n"], of_positives: Float[Tensor, " p"], owners: Int[Tensor, " p"]
) -> Float[Tensor, ""]:
    """The mean over owners of the mean over an owner's positives of -log p."""
    counts = torch.bincount(owners, minlength=len(normalizers))
    return normalizers.mean() - (of_positives / counts[owners]).sum() / len(normalizers)
