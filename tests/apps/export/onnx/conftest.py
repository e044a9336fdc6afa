"""Small models to export: texts as MiniLM has them, images through a convolution."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from littune.model.lit import ImageReference, LiT
from littune.towers.image.tower import ImageTower, Preprocess
from littune.towers.text.sources import load_text_tower
from littune.towers.text.tokenizer import train_tokenizer
from littune.towers.text.tower import TextTower
from littune.towers.text.transformer import Shape, Transformer
from tests.towers.conftest import TEXTS
from tests.towers.conftest import save_text_model as save_text_model

DIM = 24
PREPROCESS = Preprocess(size=12, resize=14, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class Convolution(nn.Module):
    """Images (n, 3, 12, 12) → (n, 24), or a map (n, 24, 5, 5)."""

    def __init__(self, *, pool: bool = True) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, DIM, 4, stride=2)
        self.norm = nn.BatchNorm2d(DIM)
        nn.init.uniform_(self.norm.running_mean)
        self.pool = pool

    def forward(self, images: Tensor) -> Tensor:
        places = self.norm(self.convolution(images)).tanh()
        return places.mean((2, 3)) if self.pool else places


def make_tower(pooling: str = "own") -> ImageTower:
    torch.manual_seed(0)
    module = Convolution(pool=pooling == "own")
    return ImageTower.from_module(module, preprocess=PREPROCESS, name="convolution", pooling=pooling)


def make_text(width: int = 32, *, padded: bool = False) -> TextTower:
    """The paper's transformer, small; ``padded`` as the published ones."""
    tokenizer = train_tokenizer(TEXTS, vocab_size=400)
    shape = Shape(width=width, depth=1, num_heads=4, vocab_size=400, num_positions=12)
    encoder, pad_id = Transformer(shape), int(padded)
    return TextTower(encoder, tokenizer, spec="small", pooling="last", max_tokens=12, pad_id=pad_id, padded=padded)


def make_model(text: TextTower | str, *, heads: str = "text", **options: object) -> LiT:
    tower = make_tower()
    torch.manual_seed(1)
    model = LiT(
        text=load_text_tower(text, max_tokens=12) if isinstance(text, str) else text,
        reference=ImageReference(spec=tower.spec, pooling=tower.pooling, identity=tower.identity),
        center=torch.randn(DIM) * 0.1,
        heads=heads,
        **options,
    )
    model.image_tower = tower
    model.precision = "float32"
    return model.eval()


SaveTextModel = Callable[..., Path]


@pytest.fixture
def model(save_text_model: SaveTextModel, tmp_path: Path) -> LiT:
    """BERT and a convolution."""
    return make_model(f"hf:{save_text_model('bert', tmp_path / 'bert', pooling='mean_tokens')}")
