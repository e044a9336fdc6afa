"""``.model`` files against the sentencepiece package, which trains them here and cuts the same texts."""

import random
from pathlib import Path

import pytest

from littune.base.errors import InputError
from littune.towers.text.sentencepiece import sentencepiece_tokenizer
from tests.towers.lit.checkpoints import TEXTS, sentencepiece_model
from tests.towers.lit.test_vocabulary import flickr_captions

sentencepiece = pytest.importorskip("sentencepiece")

ODD = [
    "",
    "   ",
    "  two   spaces ",
    "</s> <s>x</s> <unk> <pad>",
    "<0x0A>",
    "a\tb\nc",
    "\u00a0no\u00a0break",
    "▁low▁",
    "日本語 テキスト",
    "😀 smile 👩‍👩‍👧",
    "İstanbul",
    "ﬁne ½ ² ①",
    "......... ....",
    "aaaaaaaa hahahaha lololol",
    "e\u0301 é",
    "\u200bzero",
    "x" * 60,
]


def check(data: bytes, texts: list[str]) -> None:
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    ours = sentencepiece_tokenizer(data, "a.model")
    assert ours.get_vocab_size() == theirs.get_piece_size()
    for text, encoding in zip(texts, ours.encode_batch_fast(texts), strict=True):
        assert encoding.ids == theirs.encode(text.lower(), add_eos=True), text


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"byte_fallback": False},
        {"add_dummy_prefix": False},
        {"remove_extra_whitespaces": False},
        {"normalization_rule_name": "identity"},
        {"normalization_rule_name": "nmt_nfkc_cf"},
    ],
    ids=str,
)
def test_pieces_are_those_of_sentencepiece(kind: str, more: dict[str, object]) -> None:
    rng = random.Random(0)
    soup = ["".join(rng.choice("abc .-'édß😀AZ<>/s") for _ in range(30)) for _ in range(300)]
    num_pieces = 330 if more.get("byte_fallback", True) else 80
    check(sentencepiece_model(TEXTS, num_pieces, kind=kind, **more), [*TEXTS, *ODD, *soup])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_pieces_of_real_captions(kind: str, data_dir: Path) -> None:
    captions = flickr_captions(data_dir)
    check(sentencepiece_model(captions[:1500], 1500, kind=kind), captions)


def test_a_partial_download_is_an_error() -> None:
    data = sentencepiece_model(TEXTS, 320)
    for size in (0, 1, 1000, len(data) - 1):
        with pytest.raises(InputError, match=r"^a.model is no SentencePiece model"):
            sentencepiece_tokenizer(data[:size], "a.model")


@pytest.mark.parametrize("data", [b"[PAD]\n[CLS]\n", b"\x80", b"\x0a\x03\x0a\x01\xff", bytes(100), b"{}"])
def test_another_file_is_an_error(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^a.model is no SentencePiece model"):
        sentencepiece_tokenizer(data, "a.model")


def test_models_of_other_kinds_are_errors() -> None:
    with pytest.raises(
        InputError, match=r"a.model cuts texts in a way that littune does not; it reads BPE and unigram"
    ):
        sentencepiece_tokenizer(sentencepiece_model(TEXTS, 30, kind="char", byte_fallback=False), "a.model")
    with pytest.raises(InputError, match="a.model has user-defined or unused pieces"):
        sentencepiece_tokenizer(sentencepiece_model(TEXTS, 320, user_defined_symbols=["dog"]), "a.model")
    with pytest.raises(InputError, match="a.model cuts texts in a way"):
        sentencepiece_tokenizer(sentencepiece_model(TEXTS, 320, treat_whitespace_as_suffix=True), "a.model")
