"""Low-rank adapters (LoRA) on a text tower: what is trained in place of its weights, and is added to them in the end.

Each linear layer's weight W stays as it is; beside it two narrow matrices learn what is to be added, B·A. B starts at
zero, so that the tower starts as it was. As adapters of any rank learn at the same rate with it, B·A counts twice.
"""

from torch import nn

from littune.base.errors import InputError, MissingExtraError
from littune.towers.text.from_hf import HFEncoder
from littune.towers.text.tower import TextTower

# What B·A is multiplied by.
SCALE = 2


def add_adapters(tower: TextTower, *, rank: int) -> None:
    """Lock a tower, and put an adapter of this rank on each linear layer of its encoder, drawn from torch's generator.

    Raises:
        InputError: the tower is none of transformers, or has no linear layers.
        MissingExtraError: peft is not installed.
    """
    tower.requires_grad_(False)
    encoder = tower.encoder
    layers = [name for name, module in encoder.named_modules() if type(module) is nn.Linear]
    if not isinstance(encoder, HFEncoder) or not layers:
        raise InputError(
            f"lora = {rank} needs a text tower of transformers with linear layers, and {tower.spec} is none: leave it "
            "out, or take another --text"
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError("LoRA (the package peft)", "lora") from error
    config = LoraConfig(r=rank, lora_alpha=SCALE * rank, lora_dropout=0.0, target_modules=layers)
    inject_adapter_in_model(config, encoder)


def merge_adapters(tower: TextTower) -> None:
    """Add what the adapters of ``add_adapters`` learned to the weights, and take them off."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(tower.encoder.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            tower.encoder.set_submodule(name, module.get_base_layer())
