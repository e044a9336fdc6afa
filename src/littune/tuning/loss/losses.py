"""The losses over a global batch, plainly: what ``streamed.py`` computes in tiles, and is tested against.

Softmax (section 3.1): every image picks its texts, every text its images. An image may have several texts in the
batch and a text several images, so the plain cross-entropy with the diagonal as the answer would set an image
against its own captions. Each image and each text counts once, and its right answers share the target equally:
the mean over them of -log p. Where every one has a single answer this is CLIP's loss. (Two other definitions,
-log of the sum of an image's answers and one that takes the other answers out of each answer's denominator, gave
the same recall within 0.3 points; this needs no mask.)

Sigmoid (SigLIP, arXiv 2303.15343): each image with each text is a question of its own, right or wrong.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


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


def sigmoid_loss(
    images: Float[Tensor, "i d"],
    texts: Float[Tensor, "t d"],
    positives: Int[Tensor, "p 2"],
    log_temperature: Float[Tensor, ""],
    bias: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """-log sigmoid(±logit), + for the pairs that belong together: summed over texts, averaged over images.

    Args:
        images: the batch's distinct images, unit rows.
        texts: the batch's distinct texts, unit rows.
        positives: the distinct pairs (position in ``images``, position in ``texts``) that belong together.
        log_temperature: the logarithm of the factor on the cosines.
        bias: what is added to every logit.
    """
    logits = log_temperature.exp() * (images @ texts.T) + bias
    image, text = positives.unbind(dim=1)
    signs = torch.full_like(logits, -1)
    signs[image, text] = 1
    return -F.logsigmoid(signs * logits).sum() / len(images)


def _cross_entropy(
    normalizers: Float[Tensor, " n"], of_positives: Float[Tensor, " p"], owners: Int[Tensor, " p"]
) -> Float[Tensor, ""]:
    """The mean over owners of the mean over an owner's positives of -log p."""
    counts = torch.bincount(owners, minlength=len(normalizers))
    return normalizers.mean() - (of_positives / counts[owners]).sum() / len(normalizers)
