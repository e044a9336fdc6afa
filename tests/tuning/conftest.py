"""Small stores of drawn embeddings, each row with a direction of its own, and a tiny text tower in a folder."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from littune.store.manifest import Settings
from littune.store.store import EmbeddingStore
from littune.store.writer import Batch, Row, open_writer
from littune.towers.image.tower import Identity
from littune.towers.text.tokenizer import train_tokenizer

DIM = 12
WORDS = ("red", "green", "blue", "old", "new", "big", "small", "dog", "cat", "bird", "car", "tree")

MakeStore = Callable[..., EmbeddingStore]


def captions(number: int) -> tuple[str, ...]:
    """Two texts for each image; every fifth image shares its second with all the other fifths."""
    first, second = WORDS[number % len(WORDS)], WORDS[number * 7 % len(WORDS)]
    return f"a {first} {second} number {number}", "something" if number % 5 == 0 else f"the {second} {first} {number}"


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Call with a name; ``num_images``, ``kind``, ``seed`` and ``weights`` (the tower's mark) may be given."""

    def make(
        name: str, *, num_images: int = 40, kind: str = "images", seed: int = 0, weights: str = "w" * 64
    ) -> EmbeddingStore:
        random = np.random.default_rng(seed)
        embeddings = (random.normal(size=(num_images, DIM)) + 3).astype(np.float32)
        settings = Settings(
            kind=kind,
            pairs=name,
            texts=(),
            tower="timm:none",
            identity=Identity(weights=weights, pooling="own", dim=DIM, preprocess="p" if kind == "images" else ""),
            classnames=None,
            templates=None,
        )
        with open_writer(tmp_path / name, settings, {}) as writer:
            writer.append(Batch(embeddings=embeddings, rows=[_row(number, name) for number in range(num_images)]))
            writer.finish()
        return EmbeddingStore.open(tmp_path / name)

    return make


def _row(number: int, source: str) -> Row:
    fields = {"keywords": [f"keyword {number}"]}
    return Row(
        key=str(number), source=source, texts=captions(number), label=None, image_sha256=str(number), fields=fields
    )


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The spec of a two-layer BERT with drawn weights and a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    tokenizer = train_tokenizer([text for number in range(40) for text in captions(number)], vocab_size=200)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=64,
        max_position_embeddings=40,
        pad_token_id=0,
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>").save_pretrained(folder)
    return f"hf:{folder}"


NUM_PICTURES = 12


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small pictures, each of a colour of its own, with two texts in a JSON beside it."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(NUM_PICTURES):
        color = random.integers(0, 256, 3)
        noise = random.integers(-20, 21, (40, 48, 3))
        pixels = np.clip(color + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.json").write_text(json.dumps({"captions": captions(number)}))
    return folder


@pytest.fixture(scope="session")
def tiny_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The spec of a tiny ViT with drawn weights."""
    path = tmp_path_factory.mktemp("tiny-vit") / "vit.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), path)
    return f"timm:test_vit@{path}"
