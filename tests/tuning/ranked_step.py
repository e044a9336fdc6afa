"""Run by test_ranks under torchrun: the gradients of one step, summed over the ranks, into a file.

ranked_step.py CONFIG.toml OUT.pt
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from littune.base.distributed import joined
from littune.config import TrainConfig, read_toml
from littune.tuning.loss.objective import objective_of
from littune.tuning.setup import set_up
from littune.tuning.step import backward, sum_gradients


def gradients(config: TrainConfig) -> tuple[float, dict[str, torch.Tensor], bool]:
    """The loss and the gradients of the second step, and whether this process is to write them."""
    with joined(config.device) as ranks:
        setup = set_up(config, ranks)
        lengths = setup.tokens.lengths.numpy()
        images, texts, loss_of = objective_of(1, setup.batches, setup.model, config, lengths, ranks)
        loss, _ = backward([(setup.images, images), (setup.texts, texts)], loss_of, step=1)
        sum_gradients((p for group in setup.optimizer.param_groups for p in group["params"]), ranks)
        found = {name: p.grad for name, p in setup.model.named_parameters() if p.grad is not None}
        return loss, found, ranks.is_first


def read_config(path: Path) -> TrainConfig:
    """The settings that ``TrainConfig.save`` wrote."""
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in read_toml(path).items()}
    settings["from_run"] = settings.pop("from")
    settings["out"] = Path(str(settings["out"]))
    return TrainConfig(**settings)


if __name__ == "__main__":
    torch.set_num_threads(1)
    loss, found, is_first = gradients(read_config(Path(sys.argv[1])))
    if is_first:
        torch.save({"loss": loss, "gradients": found}, sys.argv[2])
