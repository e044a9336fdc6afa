"""Small models whose towers open_clip can or cannot hold."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tokenizers import AddedToken
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from littune.config import Heads
from littune.model.lit import ImageReference, LiT
from littune.towers.image.from_timm import TimmTrunk
from littune.towers.image.preprocess import Preprocess
from littune.towers.image.tower import ImageTower
from littune.towers.text.from_hf import HFEncoder
from littune.towers.text.sources import load_text_tower
from littune.towers.text.tokenizer import END_TOKEN, PAD_TOKEN, train_tokenizer
from littune.towers.text.tower import TextTower
from littune.towers.text.transformer import Shape, Transformer
from tests.open_clip_models import TEXTS, drawn, in_folder, registered

_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="session", autouse=True)
def _models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(tmp_path_factory.mktemp("open-clip")):
        yield


def timm_tower(name: str = "test_vit", pooling: str = "own", **more: Any) -> ImageTower:
    """A drawn model of timm's, with a classifier."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, **more)
    settings = {"resize": 160, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25)}
    preprocess = Preprocess(size=160, **settings)  # type: ignore[arg-type]
    return ImageTower(spec=f"timm:{name}", trunk=TimmTrunk(model, name, more), preprocess=preprocess, pooling=pooling)


def open_clip_text(name: str, folder: Path, **options: Any) -> TextTower:
    """The text tower of a tiny CLIP."""
    return load_text_tower(f"open_clip:{in_folder(drawn(name), name, folder)}", **options)


def bert_tower(kind: str = "bert", pooling: str = "mean") -> TextTower:
    """A drawn BERT or RoBERTa, 32 wide."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS, vocab_size=400)
    sizes = {**_SIZES, "vocab_size": 400, "max_position_embeddings": 40, "pad_token_id": 0}
    config = BertConfig(**sizes) if kind == "bert" else RobertaConfig(**sizes)
    model = (BertModel if kind == "bert" else RobertaModel)(config, add_pooling_layer=False)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    encoder = HFEncoder(model, config)
    return TextTower(encoder, tokenizer, spec=f"hf:{kind}", pooling=pooling, max_tokens=20, pad_id=0)


def scratch_tower(*, padded: bool, pooling: str = "last") -> TextTower:
    """A drawn transformer of the house's; padded, it is like that of a published checkpoint."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS, vocab_size=400)
    shape = Shape(width=32, depth=2, num_heads=2, vocab_size=400, num_positions=16)
    pad = END_TOKEN if padded else PAD_TOKEN
    tokenizer.add_special_tokens([AddedToken(pad, special=True)])
    pad_id = tokenizer.token_to_id(pad)
    encoder = Transformer(shape)
    return TextTower(
        encoder, tokenizer, spec="scratch:Ti", pooling=pooling, max_tokens=16, pad_id=pad_id, padded=padded
    )


def tuned(image: ImageTower, text: TextTower, heads: Heads, *, centred: bool = True, **more: Any) -> LiT:
    """A model whose heads, centre and temperature are as far from nothing as tuning makes them."""
    torch.manual_seed(1)
    center = torch.randn(image.dim) * 0.3 if centred else torch.zeros(image.dim)
    model = LiT(text=text, reference=ImageReference.of(image), center=center, heads=heads, **more)
    with torch.no_grad():
        for head in (model.image_head, model.text_head):
            if head is not None:
                head.bias.normal_(std=0.1)
        model.log_temperature.fill_(3.2)
    model.image_tower = image
    model.precision = "float32"
    return model.eval()


def run_code(code: str, folder: Path) -> str:
    """What Python prints of ``code`` in ``folder``, in a process of its own that has no littune."""
    guard = "import sys\nsys.modules['littune'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", guard + code], cwd=folder, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
