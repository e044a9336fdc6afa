"""Vocabularies: word pieces against transformers' own tokenizer, and files that are none."""

import json
import tarfile
from pathlib import Path

import pytest
from transformers import BertTokenizer

from littune.base.errors import InputError
from littune.towers.lit.vocabulary import read_vocabulary, wordpiece_tokenizer, wordpiece_vocabulary
from tests.towers.lit.checkpoints import TEXTS, bert_vocabulary

ODD = [
    "The dog's RUNNING; 3+4=7!",
    "Ünïcödé ÀÉÎ and ß",
    "日本語 text",
    "x" * 150,
    "tab\tand\nline\u00a0space",
    "childrens",
    "\u200bzero [ width ] 😀",
]


def reference(vocabulary: bytes, folder: Path) -> BertTokenizer:
    path = folder / "vocab.txt"
    path.write_bytes(vocabulary)
    return BertTokenizer.from_pretrained(folder, do_lower_case=True)


def test_word_pieces_are_those_of_transformers(tmp_path: Path) -> None:
    vocabulary = bert_vocabulary(200)
    theirs = reference(vocabulary, tmp_path)
    ours = wordpiece_tokenizer(vocabulary, "vocab.txt")
    for text in [*TEXTS, *ODD]:
        class_token, *pieces, _separator = theirs(text)["input_ids"]
        assert ours.encode(text).ids == [class_token, *pieces], text


def test_word_pieces_of_real_captions(tmp_path: Path, data_dir: Path) -> None:
    captions = flickr_captions(data_dir)
    vocabulary = bert_vocabulary(200)
    theirs = reference(vocabulary, tmp_path)
    ours = wordpiece_tokenizer(vocabulary, "vocab.txt")
    expected = theirs(captions)["input_ids"]
    for text, encoding, ids in zip(captions, ours.encode_batch_fast(captions), expected, strict=True):
        assert encoding.ids == ids[:-1], text


def test_a_text_that_spells_a_special_token_is_text() -> None:
    tokens = wordpiece_tokenizer(bert_vocabulary(200), "vocab.txt").encode("[CLS] a [PAD]").tokens
    assert tokens[0] == "[CLS]"
    assert tokens.count("[CLS]") == 1
    assert "[PAD]" not in tokens


def test_the_vocabulary_comes_back() -> None:
    vocabulary = bert_vocabulary(150)
    assert wordpiece_vocabulary(wordpiece_tokenizer(vocabulary, "vocab.txt")) == vocabulary
    windows = vocabulary.replace(b"\n", b"\r\n")
    assert wordpiece_vocabulary(wordpiece_tokenizer(windows, "vocab.txt")) == vocabulary


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xff\xfe", "it is no text"),
        (b"[PAD]\na\na\n", "it has a token twice"),
        (b"[PAD]\n[UNK]\na\n", r"it lacks \[CLS\]"),
        (b"[UNK]\n[PAD]\n[CLS]\n", r"it lacks \[PAD\] as its first"),
        (b"", r"it lacks \[PAD\]"),
    ],
)
def test_a_file_that_is_no_vocabulary(data: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=f"vocab.txt is no BERT vocabulary: {problem}"):
        wordpiece_tokenizer(data, "vocab.txt")


def test_the_vocabulary_lies_beside_or_where_one_says(tmp_path: Path) -> None:
    (tmp_path / "LiT-B16B_2.txt").write_bytes(b"beside")
    (tmp_path / "other.txt").write_bytes(b"other")
    checkpoint = tmp_path / "LiT-B16B_2.npz"
    assert read_vocabulary(checkpoint, None, ".txt") == (tmp_path / "LiT-B16B_2.txt", b"beside")
    assert read_vocabulary(checkpoint, str(tmp_path / "other.txt"), ".txt")[1] == b"other"
    with pytest.raises(InputError, match=r"the vocabulary .*LiT-B16B_2.model of .* write lit:.*npz@VOCABULARY"):
        read_vocabulary(checkpoint, None, ".model")
    with pytest.raises(InputError, match=r"the vocabulary .*none.txt of .*LiT-B16B_2.npz does not exist$"):
        read_vocabulary(checkpoint, str(tmp_path / "none.txt"), ".txt")


def flickr_captions(data_dir: Path) -> list[str]:
    """Every caption of flickr8k-1k, in every language."""
    captions: list[str] = []
    for shard in sorted((data_dir / "flickr8k-1k").glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    file = tar.extractfile(member)
                    assert file is not None
                    row = json.load(file)
                    captions += [*row["captions"], *row.get("translations", {}).values()]
    assert len(captions) >= 5000
    return captions
