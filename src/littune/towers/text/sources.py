"""Specs → text towers (design: "Specs"). Each source imports its library when it is needed."""

from collections.abc import Callable, Iterable

from littune.base.errors import InputError
from littune.towers.specs import Spec, parse_spec, without_checkpoint
from littune.towers.text.options import Options
from littune.towers.text.tokenizer import PAD_TOKEN, train_tokenizer
from littune.towers.text.tower import TextTower
from littune.towers.text.transformer import Transformer

_DEFAULT_SIZE = "S"


def load_text_tower(
    spec: str, *, max_tokens: int | None = None, pooling: str | None = None, texts: Iterable[str] | None = None
) -> TextTower:
    """The text tower that ``spec`` names, on the CPU, in float32.

    Args:
        spec: ``hf:NAME_OR_DIR`` (a text encoder of transformers), ``open_clip:NAME[@CHECKPOINT]``,
            ``lit:PATH.npz[@VOCABULARY]``, ``package:minilm``, ``package:e5-small``, or ``scratch`` or
            ``scratch:Ti|S|B|L`` (the paper's text transformer, S unless said; its weights are drawn from
            torch's generator: seed it).
        max_tokens: the most tokens of a text that are read, special tokens included; by default 32, or what the
            tower was made for (the paper: 16).
        pooling: "first", "mean" or "last"; by default what the tower was made for.
        texts: what a tokenizer from scratch is trained on; no other kind needs them.

    Raises:
        InputError: the spec is unknown, the tower cannot be loaded or does not read text, or the options do
            not go with it.
        MissingExtraError: the package is not installed.
    """
    full = f"scratch:{_DEFAULT_SIZE}" if spec == "scratch" else spec
    parsed = parse_spec(full, kinds=_LOADERS, what="text tower")
    return _LOADERS[parsed.kind](parsed, Options(max_tokens=max_tokens, pooling=pooling, texts=texts))


def _from_scratch(spec: Spec, options: Options) -> TextTower:
    without_checkpoint(spec, what="text tower")
    if options.texts is None:
        raise InputError(f"{spec.text} trains its tokenizer on texts, and there are none here")
    tokenizer = train_tokenizer(options.texts)
    pad_id = tokenizer.token_to_id(PAD_TOKEN)
    assert pad_id is not None
    encoder = Transformer.of_size(spec.name, vocab_size=tokenizer.get_vocab_size(), num_positions=options.tokens)
    return TextTower(
        encoder,
        tokenizer,
        spec=spec.text,
        pooling=options.pooling or "last",
        max_tokens=options.tokens,
        pad_id=pad_id,
    )


# Each imports its library when it is needed: the command line must not wait for the others.
def _from_hf(spec: Spec, options: Options) -> TextTower:
    from littune.towers.text.from_hf import load_hf_text

    return load_hf_text(spec, options)


def _from_lit(spec: Spec, options: Options) -> TextTower:
    from littune.towers.text.from_lit import load_lit_text

    return load_lit_text(spec, options)


def _from_open_clip(spec: Spec, options: Options) -> TextTower:
    from littune.towers.text.from_open_clip import load_open_clip_text

    return load_open_clip_text(spec, options)


def _from_package(spec: Spec, options: Options) -> TextTower:
    from littune.towers.text.from_packages import load_package_text

    return load_package_text(spec, options)


_LOADERS: dict[str, Callable[[Spec, Options], TextTower]] = {
    "hf": _from_hf,
    "lit": _from_lit,
    "open_clip": _from_open_clip,
    "package": _from_package,
    "scratch": _from_scratch,
}
