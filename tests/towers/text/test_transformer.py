from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from littune.base.errors import InputError
from littune.towers.text.transformer import SIZES, Shape, Transformer

SHAPE = Shape(width=24, depth=2, num_heads=3, vocab_size=50, num_positions=9)


@pytest.fixture
def transformer() -> Transformer:
    torch.manual_seed(0)
    return Transformer(SHAPE)


def ragged_batch() -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, 50, (4, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(7) < torch.tensor([7, 1, 4, 6])[:, None]
    return ids, mask


def reference(model: Transformer, ids: Tensor, mask: Tensor) -> Tensor:
    """The same network with torch's fused attention, from the weights by name."""
    weights = dict(model.named_parameters())

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (SHAPE.width,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-6)

    x = weights["words.weight"][ids] + weights["positions"][: ids.shape[1]]
    for number in range(SHAPE.depth):
        block = f"blocks.{number}"
        y = norm(f"{block}.attention_norm", x)
        q, k, v = (
            linear(f"{block}.attention.{part}", y).unflatten(-1, (SHAPE.num_heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = x + linear(f"{block}.attention.out", y.transpose(1, 2).flatten(2))
        y = F.gelu(linear(f"{block}.mlp_in", norm(f"{block}.mlp_norm", x)), approximate="tanh")
        x = x + linear(f"{block}.mlp_out", y)
    return norm("norm", x)


def test_padded_texts_agree_with_fused_attention(transformer: Transformer):
    ids, mask = ragged_batch()
    torch.testing.assert_close(transformer(ids, mask)[mask], reference(transformer, ids, mask)[mask])


def test_padding_changes_nothing(transformer: Transformer):
    ids, mask = ragged_batch()
    together = transformer(ids, mask)
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        alone = transformer(ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(alone[0], together[row, :length])


def test_tokens_see_those_that_follow_and_their_order(transformer: Transformer):
    mask = torch.ones(1, 3, dtype=torch.bool)
    first = transformer(torch.tensor([[1, 2, 3]]), mask)[0, 0]
    assert not torch.allclose(first, transformer(torch.tensor([[1, 2, 4]]), mask)[0, 0])
    assert not torch.allclose(first, transformer(torch.tensor([[1, 3, 2]]), mask)[0, 0])


def test_every_weight_has_a_finite_gradient(transformer: Transformer):
    ids, mask = ragged_batch()
    transformer(ids, mask)[mask].square().sum().backward()
    for name, parameter in transformer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_seed_decides_the_weights():
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in Transformer(SHAPE).parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize("size", SIZES)
def test_the_sizes_are_those_of_the_vits(size: str):
    widths, depths = {"Ti": 192, "S": 384, "B": 768, "L": 1024}, {"Ti": 12, "S": 12, "B": 12, "L": 24}
    with torch.device("meta"):
        model = Transformer.of_size(size, vocab_size=10, num_positions=16)
    assert (model.dim, len(model.blocks), model.dim // model.shape.num_heads) == (widths[size], depths[size], 64)


def test_an_unknown_size_is_an_error_that_lists_the_known():
    with pytest.raises(InputError, match="no size 'XL'; choose one of Ti, S, B, L"):
        Transformer.of_size("XL", vocab_size=10, num_positions=16)


def test_a_damaged_folder_is_an_error(transformer: Transformer, tmp_path: Path):
    transformer.write_config(tmp_path)
    with pytest.raises(InputError, match="holds no whole text transformer"):
        Transformer.load(tmp_path)
    weights = transformer.state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    assert torch.equal(Transformer.load(tmp_path).positions, transformer.positions)
    save_file(weights | {"typo": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="holds no whole text transformer"):
        Transformer.load(tmp_path)
    save_file({n: w for n, w in weights.items() if n != "positions"}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="holds no whole text transformer"):
        Transformer.load(tmp_path)
    assert "positions" not in load_file(tmp_path / "model.safetensors")
