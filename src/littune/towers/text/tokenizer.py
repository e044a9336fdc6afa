"""Texts → tokens, without padding; and the tokenizer that is trained on the texts themselves.

Tokens are kept ragged, one text after the other, and are padded only when a micro-batch is drawn, to the
longest text in it. A tokenizer adds the special tokens it was made with, also where a text is cut: BERT's are
``[CLS]`` and ``[SEP]``, as its pre-training saw them. (The paper's BERT has no ``[SEP]`` and one more piece.)
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int
from tokenizers import Encoding, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from littune.base.errors import InputError

# Tokenising is never what takes long, and the library's own threads do not outlive a fork.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

VOCAB_SIZE = 32_000
PAD_TOKEN, END_TOKEN = "<pad>", "</s>"

# An encoding of the library's is much larger than its tokens: so many texts at a time.
_CHUNK = 8192


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The tokens of some texts, ragged.

    Attributes:
        ids: the token ids of all texts, one text after the other, int32.
        lengths: how many of them are each text's, at least 1, int64.
        num_truncated: how many texts had more tokens than the tower reads.
        pad_id: what a batch is padded with.
    """

    ids: Int[Tensor, "total"]
    lengths: Int[Tensor, "n"]
    num_truncated: int
    pad_id: int

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self.lengths)

    def batch(self, rows: Sequence[int] | Int[Tensor, "m"]) -> tuple[Int[Tensor, "m t"], Bool[Tensor, "m t"]]:
        """The tokens of some texts, padded on the right to the longest of them.

        Args:
            rows: the texts' positions, in any order and any number of times.

        Returns:
            The ids, int64, and which of them are tokens, not padding.
        """
        rows = torch.as_tensor(rows, dtype=torch.int64)
        lengths = self.lengths[rows]
        offsets = torch.arange(int(lengths.max()) if len(rows) else 0)
        mask = offsets < lengths[:, None]
        places = torch.where(mask, self._starts[rows][:, None] + offsets, 0)
        return torch.where(mask, self.ids[places].long(), self.pad_id), mask

    @cached_property
    def _starts(self) -> Int[Tensor, "n"]:
        return self.lengths.cumsum(0) - self.lengths


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """A copy of ``tokenizer`` that neither cuts nor pads, as files hold it."""
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain


def truncating(tokenizer: Tokenizer, max_tokens: int, *, pad_with: int | None = None) -> Tokenizer:
    """A copy of ``tokenizer`` that cuts texts to ``max_tokens``, special tokens included.

    Args:
        tokenizer: stays as it is.
        max_tokens: the most tokens of a text.
        pad_with: an id that shorter texts are filled up with to ``max_tokens``, as tokens of theirs; None for no
            padding.

    Raises:
        InputError: the special tokens alone are as many.
    """
    num_special = tokenizer.num_special_tokens_to_add(False)
    if max_tokens <= num_special:
        raise InputError(f"max_tokens {max_tokens} leaves no room for words; take at least {num_special + 1}")
    copy = plain_tokenizer(tokenizer)
    copy.enable_truncation(max_tokens)
    if pad_with is not None:
        copy.enable_padding(length=max_tokens, pad_id=pad_with, pad_token=copy.id_to_token(pad_with))
    return copy


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], *, pad_id: int) -> Tokens:
    """The tokens of ``texts``, by a tokenizer of ``truncating``; a text without any is one padding token.

    Raises:
        InputError: ``texts`` is a single string, or one of them is no valid Unicode.
    """
    if isinstance(texts, str):
        raise InputError(f"{texts!r} is one text where a list of texts is wanted; write [{texts!r}]")
    ids: list[int] = []
    lengths: list[int] = []
    num_truncated = 0
    for start in range(0, len(texts), _CHUNK):
        for encoding in _encode(tokenizer, texts[start : start + _CHUNK]):
            tokens = encoding.ids or [pad_id]
            ids += tokens
            lengths.append(len(tokens))
            num_truncated += bool(encoding.overflowing)
    return Tokens(
        ids=torch.tensor(ids, dtype=torch.int32),
        lengths=torch.tensor(lengths, dtype=torch.int64),
        num_truncated=num_truncated,
        pad_id=pad_id,
    )


def train_tokenizer(texts: Iterable[str], *, vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """A tokenizer for a text tower from scratch: lower-cased byte pairs, and an end token that cuts do not lose.

    Bytes, so that no script is unknown to it, however few texts it is trained on. The same texts give the same
    tokenizer.

    Args:
        texts: what it is trained on.
        vocab_size: the most tokens it may have; few texts give fewer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[PAD_TOKEN, END_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    end = (END_TOKEN, tokenizer.token_to_id(END_TOKEN))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END_TOKEN}", special_tokens=[end])
    return tokenizer


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    try:
        return tokenizer.encode_batch_fast(list(texts))
    except TypeError as error:
        # What the library says of a lone surrogate, such as Python makes of undecodable bytes.
        broken = next((text for text in texts if any("\ud800" <= character <= "\udfff" for character in text)), None)
        if broken is None:
            raise
        raise InputError(f"the text {broken!r} is no valid Unicode; mend it or leave it out") from error


def micro_batches(lengths: npt.NDArray[np.integer], max_tokens: int) -> list[npt.NDArray[np.int64]]:
    """Cut texts into micro-batches of similar length, the longest first, with almost no padding.

    Args:
        lengths: each text's number of tokens, int (n,).
        max_tokens: tokens, padding included, that a micro-batch may hold; a longer text stands alone.

    Returns:
        For each micro-batch its texts' positions, int64 (m,); together every position once.
    """
    order = np.argsort(-lengths, kind="stable")
    cuts = []
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        stop = start + max(1, max_tokens // longest)
        cuts.append(order[start:stop])
        start = stop
    return cuts
