"""The vocabularies that lie beside the checkpoints, and the tokenizers that were trained with.

BERT's puts ``[CLS]`` before a text and, unlike BERT's own, nothing after it. Nothing that a text spells is read as a
special token.
"""

from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from littune.base.errors import InputError

PAD, CLASS, UNKNOWN = "[PAD]", "[CLS]", "[UNK]"


def read_vocabulary(checkpoint: Path, given: str | None, suffix: str) -> tuple[Path, bytes]:
    """The vocabulary file of a checkpoint, and what it holds.

    Args:
        checkpoint: the checkpoint.
        given: the file, where the user named it.
        suffix: what it ends in beside the checkpoint, under the same stem.

    Raises:
        InputError: it is not there.
    """
    path = Path(given).expanduser() if given is not None else checkpoint.with_suffix(suffix)
    if not path.is_file():
        fix = "" if given is not None else f"; download it too, or write lit:{checkpoint}@VOCABULARY"
        raise InputError(f"the vocabulary {path} of {checkpoint} does not exist{fix}")
    return path, path.read_bytes()


def wordpiece_tokenizer(data: bytes, name: str) -> Tokenizer:
    """The tokenizer of a BERT vocabulary, a token a line: lower-cased word pieces after ``[CLS]``.

    Args:
        data: the file's contents.
        name: what the file is called in messages.

    Raises:
        InputError: it is no such vocabulary.
    """
    try:
        tokens = [line.removesuffix("\r") for line in data.decode().removesuffix("\n").split("\n")]
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is no BERT vocabulary: it is no text") from error
    vocab = {token: index for index, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise InputError(f"{name} is no BERT vocabulary: it has a token twice")
    lacking = [token for token in (PAD, UNKNOWN, CLASS) if token not in vocab]
    if lacking or vocab[PAD] != 0:
        raise InputError(f"{name} is no BERT vocabulary: it lacks {lacking[0] if lacking else f'{PAD} as its first'}")
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=UNKNOWN, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLASS} $A", special_tokens=[(CLASS, vocab[CLASS])]
    )
    return tokenizer


def wordpiece_vocabulary(tokenizer: Tokenizer) -> bytes:
    """The file that ``wordpiece_tokenizer`` makes the tokenizer of."""
    vocab = tokenizer.get_vocab(with_added_tokens=False)
    return "".join(f"{token}\n" for token in sorted(vocab, key=vocab.__getitem__)).encode()
