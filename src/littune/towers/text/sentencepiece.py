"""SentencePiece's ``.model`` files → a tokenizer of the tokenizers library that cuts texts into the same pieces.

Neither sentencepiece nor protobuf is needed: what decides how a text is cut is read from the file itself. Texts are
lower-cased first, as the paper's are. A text that spells a special piece, such as ``</s>``, is cut like any other
text, by SentencePiece and here.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, models, normalizers, processors

from littune.base.errors import InputError

END_PIECE = "</s>"

_SPACE = "▁"
# What no text holds once its spaces are escaped: a piece that begins with it is never found in one.
_HIDDEN = " "

# Numbers of sentencepiece_model.proto. A field that a file leaves out has its default.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_TYPE = 1, 2, 3
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_MODEL_TYPE, _UNIGRAM, _BPE = 3, 1, 2
_SPACE_AS_SUFFIX, _BYTE_FALLBACK = 24, 35
_CHARSMAP, _ADD_SPACE, _REMOVE_SPACES, _ESCAPE_SPACES = 2, 3, 4, 5

# What protobuf's wire format makes of a message: a number, or bytes, by a field's number.
_Fields = dict[int, int | bytes]


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    score: float
    type: int


@dataclass(frozen=True, slots=True)
class _Model:
    """What a file says of how texts are cut."""

    pieces: list[_Piece]
    trainer: _Fields
    normalizer: _Fields

    @property
    def unknown(self) -> str:
        return next(piece.text for piece in self.pieces if piece.type == _UNKNOWN)

    @property
    def has_bytes(self) -> bool:
        return bool(self.trainer.get(_BYTE_FALLBACK, 0))


def sentencepiece_tokenizer(data: bytes, name: str) -> Tokenizer:
    """The tokenizer of a ``.model`` file: lower-cased pieces, and ``</s>`` after them.

    Args:
        data: the file's contents.
        name: what the file is called in messages.

    Raises:
        InputError: it is no such file, a damaged one, or a model of another kind than BPE and unigram.
    """
    model = _read(data, name)
    tokenizer = Tokenizer(_unigram(model) if _model_type(model) == _UNIGRAM else _bpe(model))
    tokenizer.normalizer = _normalizer(model.normalizer)
    end = next(index for index, piece in enumerate(model.pieces) if piece.text == END_PIECE)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END_PIECE}", special_tokens=[(END_PIECE, end)]
    )
    return tokenizer


def _read(data: bytes, name: str) -> _Model:
    pieces: list[_Piece] = []
    parts: dict[int, _Fields] = {_TRAINER: {}, _NORMALIZER: {}}
    try:
        for number, value in _fields(data):
            if number == _PIECES:
                pieces.append(_piece(value))
            elif number in parts:
                assert isinstance(value, bytes)
                parts[number] = dict(_fields(value))
    except (ValueError, IndexError, AssertionError, KeyError, struct.error) as error:
        raise InputError(f"{name} is no SentencePiece model, or a damaged one; download it again") from error
    model = _Model(pieces, parts[_TRAINER], parts[_NORMALIZER])
    _check(model, name)
    return model


def _piece(value: int | bytes) -> _Piece:
    assert isinstance(value, bytes)
    fields = dict(_fields(value))
    text, score, kind = fields[_PIECE_TEXT], fields.get(_PIECE_SCORE, bytes(4)), fields.get(_PIECE_TYPE, _NORMAL)
    assert isinstance(text, bytes)
    assert isinstance(score, bytes)
    assert isinstance(kind, int)
    return _Piece(text.decode(), struct.unpack("<f", score)[0], kind)


def _check(model: _Model, name: str) -> None:
    types = {piece.type for piece in model.pieces}
    if not any(piece.text == END_PIECE for piece in model.pieces) or _UNKNOWN not in types:
        raise InputError(f"{name} is no SentencePiece model with the pieces {END_PIECE} and <unk>")
    if not types <= {_NORMAL, _UNKNOWN, _CONTROL, _BYTE}:
        raise InputError(f"{name} has user-defined or unused pieces, which littune does not read")
    odd = model.trainer.get(_SPACE_AS_SUFFIX, 0) or not model.normalizer.get(_ESCAPE_SPACES, 1)
    if _model_type(model) not in (_UNIGRAM, _BPE) or odd:
        raise InputError(f"{name} cuts texts in a way that littune does not; it reads BPE and unigram models")


def _model_type(model: _Model) -> int | bytes:
    return model.trainer.get(_MODEL_TYPE, _UNIGRAM)


def _unigram(model: _Model) -> models.Unigram:
    lowest = min((piece.score for piece in model.pieces if piece.type == _NORMAL), default=0.0)
    unknown = next(index for index, piece in enumerate(model.pieces) if piece.type == _UNKNOWN)
    vocab = [_entry(piece, lowest) for piece in model.pieces]
    return models.Unigram(vocab, unk_id=unknown, byte_fallback=model.has_bytes)


def _entry(piece: _Piece, lowest: float) -> tuple[str, float]:
    if piece.type == _BYTE:
        return piece.text, lowest  # found by its name where it is fallen back on, and unlikely elsewhere
    return piece.text if piece.type == _NORMAL else _HIDDEN + piece.text, piece.score


def _bpe(model: _Model) -> models.BPE:
    """Of two neighbours, SentencePiece joins those first that make the piece of the highest score."""
    normal = {piece.text for piece in model.pieces if piece.type == _NORMAL}
    ranked = sorted((piece for piece in model.pieces if piece.type == _NORMAL), key=lambda piece: -piece.score)
    merges = [
        (piece.text[:cut], piece.text[cut:])
        for piece in ranked
        for cut in range(1, len(piece.text))
        if piece.text[:cut] in normal and piece.text[cut:] in normal
    ]
    return models.BPE(
        {piece.text: index for index, piece in enumerate(model.pieces)},
        merges,
        unk_token=model.unknown,
        fuse_unk=True,
        byte_fallback=model.has_bytes,
    )


def _normalizer(fields: _Fields) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = [normalizers.Lowercase()]
    charsmap = fields.get(_CHARSMAP)
    if charsmap:
        assert isinstance(charsmap, bytes)
        steps.append(normalizers.Precompiled(charsmap))
    if fields.get(_REMOVE_SPACES, 1):
        steps += [normalizers.Replace(Regex(f"^ +|[ {_SPACE}]+$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if fields.get(_ADD_SPACE, 1):
        steps.append(normalizers.Prepend(_SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message in protobuf's wire format: their numbers, and what they hold.

    Raises:
        ValueError: it is no such message.
        IndexError: it ends too early.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        size = {0: 0, 1: 8, 5: 4}.get(key & 7)
        if size == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if size is None:
            if key & 7 != 2:
                raise ValueError(f"{key & 7} is no type of protobuf's wire format")
            size, at = _varint(data, at)
        if at + size > len(data):
            raise IndexError("the message ends within a field")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a place, seven bits a byte, and the place after it."""
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1
