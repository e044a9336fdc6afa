"""Run by test_streamed, once for every rank: its shares of drawn batches, to the losses and gradients it gets.

    ranked_losses.py RANK SIZE MEETING OUT

MEETING is a file through which the ranks find each other; the results are saved to OUT, one list a case.
"""

import sys
from pathlib import Path

import torch
from torch import distributed

sys.path.insert(0, str(Path(__file__).parents[3]))

from littune.base.distributed import Ranks
from tests.tuning.loss.drawn_losses import LOSSES, draw, streamed, value_and_gradients

# How much of a batch's images and texts the first of two ranks holds: a half, unlike parts, all and nothing.
SHARES = ((0.5, 0.5), (0.2, 0.7), (0.9, 0.0), (1.0, 1.0), (0.0, 1.0))
CASES = [
    (loss, kind, temperature, share)
    for loss in LOSSES
    for kind, temperature in (("any", 10.0), ("duplicates", 100.0))
    for share in SHARES
]


def share_of(count: int, share: float, rank: int) -> slice:
    first = round(count * share)
    return slice(0, first) if rank == 0 else slice(first, count)


def results(ranks: Ranks) -> list[list[torch.Tensor]]:
    all_results = []
    for seed, (loss, kind, temperature, (of_images, of_texts)) in enumerate(CASES):
        drawn = draw(kind, temperature, seed)
        images, texts, *scalars = drawn.inputs(loss)
        own_images = images[share_of(len(images), of_images, ranks.rank)]
        own_texts = texts[share_of(len(texts), of_texts, ranks.rank)]
        of_inputs = streamed(loss, drawn.positives, max_cells=50, ranks=ranks)
        all_results.append(value_and_gradients(of_inputs, [own_images, own_texts, *scalars]))
    return all_results


def main(rank: int, size: int, meeting: str, out: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    torch.save(results(Ranks(rank=rank, size=size)), out)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
