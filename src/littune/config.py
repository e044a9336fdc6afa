"""The settings of the verbs: frozen dataclasses, TOML in, TOML out.

The command line, a TOML file and Python calls all fill the same dataclasses, so a setting is named,
documented and checked once. Values are checked as they are set; an error names the setting and the value.
"""

import dataclasses
import math
import tomllib
from pathlib import Path
from typing import Annotated, Literal, get_args

import tomli_w
from cyclopts import Parameter

from littune.base.errors import InputError, MismatchError
from littune.base.files import write_bytes

Locking = Literal["LL", "LU", "Lu"]
Precision = Literal["auto", "float32", "bfloat16"]
Pooling = Literal["own", "cls", "mean", "cls+mean"]
TextPooling = Literal["auto", "first", "mean", "last"]

_CHOICES = {
    "locking": get_args(Locking),
    "pooling": get_args(TextPooling),
    "precision": get_args(Precision),
    "center": ("mean", "none"),
}

# What each locking trains decides how large a step may be; measured on the val splits of three small sets.
LEARNING_RATES: dict[Locking, float] = {"LL": 2e-3, "LU": 1e-4, "Lu": 1e-3}

TEMPERATURE = 10.0

# A quarter of Flickr8k's captions are longer than the paper's 16 tokens.
MAX_TOKENS = 32

# Settings that say how to run, not what to compute: they may differ when a run goes on.
_FREE_SETTINGS = frozenset({"out", "val", "bundle", "device"})


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
    """Where and how precisely towers run; the same for every verb that has them."""

    device: str = "cpu"
    """The torch device: cpu, cuda, cuda:1, …"""
    precision: Precision = "auto"
    """How towers compute; auto takes bfloat16 where the hardware gains from it, float32 elsewhere."""
    workers: int = 2
    """Threads that decode images."""

    def __post_init__(self) -> None:
        _check(self.workers >= 1, "workers", self.workers, "at least 1")


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a training run is made of."""

    store: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)]
    """Stores to train on, each PATH[:WEIGHT[:FIELD,…]]: WEIGHT times as often as its size says, with the texts
    of these fields."""
    out: Path
    """The run folder to write; an unfinished one with the same settings goes on."""
    text: str = ""
    """The text tower: hf:NAME_OR_DIR, package:minilm, scratch:Ti|S|B|L. May be left out with --from."""
    locking: Locking = "LU"
    """The paper's two letters, image tower first: L locked, U unlocked pre-trained, u from scratch."""
    from_run: Annotated[str, Parameter(name="--from")] = ""
    """Start from the weights of this run."""
    val: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)] = ()
    """Stores or pairs to score before the first step and after each epoch."""
    batch_size: int = 512
    """Pairs in a global batch."""
    epochs: int = 20
    """Times that every pair is visited."""
    lr: float | None = None
    """Peak learning rate; by default 2e-3 for LL, 1e-4 for LU (20 times that for its head), 1e-3 for Lu."""
    weight_decay: float = 1e-2
    """Decoupled weight decay, on kernels only (torch's AdamW scale: multiplied by the learning rate)."""
    warmup: float = 0.1
    """Share of the steps that warm the learning rate up from 0; a cosine then takes it back to 0."""
    grad_clip: float = 1.0
    """Clip the gradient's global norm at this."""
    temperature: float | None = None
    """Initial factor on the cosines, which is learned; by default 10, or that of the run of --from."""
    max_tokens: int | None = None
    """Longer texts are cut to so many tokens; by default 32, or what the run of --from has (the paper: 16)."""
    pooling: TextPooling = "auto"
    """How the text tower pools its tokens; auto is the tower's own way."""
    center: Literal["mean", "none"] = "mean"
    """Subtract the mean embedding of the training images (and of the class directions) before normalising."""
    center_on: str = ""
    """A store of (unlabelled) images whose mean is subtracted instead."""
    seed: int = 0
    """Seed of all first weights that are drawn and of the order of pairs."""
    bundle: bool = False
    """Copy the image tower's weights into the run, so that it needs nothing else."""
    device: str = "cpu"
    """The torch device: cpu, cuda, cuda:1, …"""
    precision: Precision = "auto"
    """How the text tower computes; auto takes bfloat16 where the hardware gains from it."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            _check(getattr(self, name) in choices, name, getattr(self, name), f"one of {', '.join(choices)}")
        _check(bool(self.store), "store", self.store, "at least one store")
        _check(bool(self.text or self.from_run), "text", self.text, "a text tower's spec, or --from a run")
        _check(self.batch_size >= 2, "batch_size", self.batch_size, "at least 2")
        _check(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        _check(self.lr is None or self.lr > 0, "lr", self.lr, "positive")
        _check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _check(0 <= self.warmup < 1, "warmup", self.warmup, "a share from 0 to below 1")
        _check(self.grad_clip > 0, "grad_clip", self.grad_clip, "positive")
        _check(self.temperature is None or 0 < self.temperature < math.inf, "temperature", self.temperature, "positive")
        _check(self.max_tokens is None or self.max_tokens >= 3, "max_tokens", self.max_tokens, "at least 3")
        _check(not (self.center_on and self.center == "none"), "center_on", self.center_on, "unset when center is none")

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, with the locking's default where none is set."""
        return LEARNING_RATES[self.locking] if self.lr is None else self.lr

    def save(self, path: Path) -> None:
        """Write the settings as TOML that ``littune train --config`` reads back."""
        write_bytes(path, tomli_w.dumps(_as_toml(self)).encode())

    def check_same(self, path: Path) -> None:
        """Check that the settings saved in ``path`` ask for the same weights as these.

        Raises:
            MismatchError: one differs; the message names it and both values.
        """
        before, now = read_toml(path), _as_toml(self)
        for name in sorted((before.keys() | now.keys()) - _FREE_SETTINGS):
            if before.get(name) != now.get(name):
                raise MismatchError(
                    f"{path.parent} was begun with {name} = {before.get(name, 'unset')!r}, now it is "
                    f"{now.get(name, 'unset')!r}: use the same settings to go on, or another --out"
                )


def read_toml(path: Path) -> dict[str, object]:
    """The table in a TOML file.

    Raises:
        InputError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the settings {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreChoice:
    """One of the stores to train on, as ``PATH[:WEIGHT[:FIELD,…]]`` names it."""

    path: Path
    weight: float = 1.0
    fields: tuple[str, ...] = ()
    """Fields that supply the texts; empty for those chosen when the store was made."""

    @classmethod
    def parse(cls, spec: str) -> "StoreChoice":
        """Read ``PATH[:WEIGHT[:FIELD,…]]``; an empty WEIGHT is 1.

        Raises:
            InputError: the weight is no positive number, or there are more than three parts.
        """
        path, *rest = spec.split(":")
        if not path or len(rest) > 2:
            raise InputError(f"store {spec!r} is not spelled PATH[:WEIGHT[:FIELD,…]]")
        weight = _weight(spec, rest[0]) if rest and rest[0] else 1.0
        fields = tuple(name.strip() for name in rest[1].split(",") if name.strip()) if len(rest) > 1 else ()
        return cls(path=Path(path), weight=weight, fields=fields)


def _weight(spec: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError as error:
        raise InputError(
            f"store {spec!r}: the weight {text!r} is no number; spell it PATH[:WEIGHT[:FIELD,…]]"
        ) from error
    if not (weight > 0 and math.isfinite(weight)):
        raise InputError(f"store {spec!r}: the weight {text!r} must be positive")
    return weight


def _as_toml(config: TrainConfig) -> dict[str, object]:
    values = {("from" if name == "from_run" else name): value for name, value in dataclasses.asdict(config).items()}
    return {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _check(ok: bool, name: str, value: object, wanted: str) -> None:
    if not ok:
        raise InputError(f"{name} = {value!r} is not usable: it must be {wanted}")
