"""Text towers in transformers: the same tokens, and the same outputs for texts of different lengths."""

from pathlib import Path

import pytest
import torch
import transformers
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers.utils import logging

from littune.apps.export.hf.saving import load_arguments, quietly
from littune.apps.export.hf.text import text_model, write_text_tower, write_tokenizer
from littune.base.errors import InputError
from littune.towers.text.encoder import Encoder
from littune.towers.text.sources import load_text_tower
from littune.towers.text.tower import TextTower
from tests.apps.export.drawn_models import MAX_TOKENS, TEXTS, text_tower
from tests.towers.conftest import SaveTextModel
from tests.towers.conftest import save_text_model as save_text_model


def loaded(tower: TextTower, folder: Path) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    """The tower as it is read back from a folder."""
    model = write_text_tower(tower, folder)
    with quietly():
        read = type(model).from_pretrained(folder, **load_arguments(model)).eval()
        return read, transformers.AutoTokenizer.from_pretrained(folder)


def assert_same_outputs(tower: TextTower, folder: Path) -> None:
    model, tokenizer = loaded(tower, folder)
    padding = "max_length" if tower.padded else True
    tokens = tokenizer(TEXTS, padding=padding, truncation=True, return_tensors="pt")
    ids, mask = tower.tokenize(TEXTS).batch(range(len(TEXTS)))
    assert torch.equal(tokens.input_ids[mask], ids[mask])
    assert tower.padded or torch.equal(tokens.attention_mask.bool(), mask)
    with torch.no_grad():
        found, expected = model(**tokens).last_hidden_state, tower.encoder(ids, mask)
    torch.testing.assert_close(found[mask], expected[mask], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert", "t5", "gpt2"])
def test_a_transformers_encoder_is_written_as_it_is(kind: str, save_text_model: SaveTextModel, tmp_path: Path) -> None:
    spec = f"hf:{save_text_model(kind, tmp_path / 'source')}"
    assert_same_outputs(load_text_tower(spec, max_tokens=MAX_TOKENS), tmp_path / "out")


@pytest.mark.parametrize("padded", [False, True])
def test_the_papers_transformer_is_an_xlm_roberta_xl(padded: bool, tmp_path: Path) -> None:
    tower = text_tower("scratch", "last", padded=padded)
    assert_same_outputs(tower, tmp_path)
    assert (text_tower("scratch").tokenize(TEXTS).lengths < MAX_TOKENS).any(), "no text is padded"


def test_the_tower_itself_stays_as_it_was(tmp_path: Path) -> None:
    tower = text_tower("bert")
    before = tower.identity
    model = text_model(tower)
    nn.init.zeros_(model.get_input_embeddings().weight)
    write_text_tower(tower, tmp_path)
    assert tower.identity == before


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert logging.is_progress_bar_enabled()
    write_text_tower(text_tower("scratch"), tmp_path)
    assert capfd.readouterr() == ("", "")


def words_tower(post_processor: object = None, *, added: tuple[str, ...] = (), pad_id: int = 0) -> TextTower:
    """A tower of a tokenizer of whole words, the first of which is a dog."""
    tokenizer = Tokenizer(models.WordLevel({"dog": 0, "cat": 1, "<s>": 2, "?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(added))
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    drawn = text_tower("bert")
    return TextTower(drawn.encoder, tokenizer, spec="words", pooling="mean", max_tokens=8, pad_id=pad_id)


@pytest.mark.parametrize(
    "tower",
    [
        words_tower(added=("<s>",)),
        words_tower(processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])),
    ],
    ids=["added", "named by the post-processor"],
)
def test_a_word_is_not_made_the_padding(tower: TextTower, tmp_path: Path) -> None:
    """Where a tower pads with a word, calling it special would cut "dogs" in two."""
    write_tokenizer(tower, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.pad_token == "<s>"
    texts = ["dogs dog", "dog cat"]
    assert tokenizer(texts).input_ids == [row.ids for row in tower.tokenizer.encode_batch(texts)]
    assert tokenizer(texts).input_ids[0][-2:] == [3, 0], "an unknown word and a dog"


def test_padding_takes_the_towers_own_token_where_that_is_special(tmp_path: Path) -> None:
    write_tokenizer(words_tower(added=("<s>", "<pad>"), pad_id=4), tmp_path)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).pad_token == "<pad>"


def test_without_any_special_token_there_is_none_to_pad_with(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'?words'? is not written: its tokenizer has no special token to pad with"):
        write_tokenizer(words_tower(), tmp_path)


class Foreign(Encoder):
    kind = "open_clip"
    dim = 4

    def forward(self, ids: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n t dim"]:
        return torch.zeros(*ids.shape, 4)

    def word_embedding(self) -> nn.Embedding:
        return nn.Embedding(1, 4)

    def write_config(self, folder: Path) -> None:
        return None


def test_another_kind_of_encoder_is_one_clear_line(tmp_path: Path) -> None:
    tokenizer = text_tower("bert").tokenizer
    tower = TextTower(Foreign(), tokenizer, spec="open_clip:x", pooling="last", max_tokens=8, pad_id=0)
    with pytest.raises(InputError, match="text tower open_clip:x is not written: transformers has no open_clip model"):
        write_text_tower(tower, tmp_path)
