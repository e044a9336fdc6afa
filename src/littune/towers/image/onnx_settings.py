"""OnnxSettings: what the TOML file beside an ONNX graph says of it.

Numbers are read as the decimals that they are, so that a mean of 123.675 is exactly the 0.485 of other towers.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from littune.base.errors import InputError
from littune.base.files import write_bytes
from littune.towers.image.preprocess import Channels, Preprocess

Numbers = tuple[Decimal, Decimal, Decimal]

_CHOICES = {
    "layout": ("nchw", "nhwc"),
    "output_layout": ("nchw", "nhwc"),
    "channels": ("rgb", "bgr"),
}
_FULL = Decimal(255)


@dataclass(frozen=True, kw_only=True)
class Twin:
    """The torch tower that a graph was exported from: its embeddings are the same to rounding."""

    weights: str
    """The weights' SHA-256 in that tower's identity."""
    graph: str
    """``OnnxTrunk.own_digest`` of the export: what was changed since is another tower."""


@dataclass(frozen=True, kw_only=True)
class OnnxSettings:
    """What the TOML file beside a graph says."""

    size: int
    """The side of the square that the graph sees."""
    mean: Numbers
    """Subtracted from pixels of 0…255, in the graph's order of channels."""
    std: Numbers
    """Divides what is left."""
    output: str = ""
    """The tensor that is the embedding, or the tokens; empty for the graph's only output."""
    resize: int | None = None
    """As in ``Preprocess``; by default the size."""
    fit: str = "short"
    """As in ``Preprocess``."""
    interpolation: str = "bicubic"
    """As in ``Preprocess``."""
    layout: str = "nchw"
    """The order of the input's axes."""
    output_layout: str = "nchw"
    """That of the output's, where it is a map."""
    channels: str = "rgb"
    """The order of the input's channels."""
    num_prefix_tokens: int = 0
    """Of an output of tokens, how many come before those of the patches; the first is the class token."""
    exported: Twin | None = None
    """The torch tower that littune exported the graph from."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} = {getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}")
        if self.num_prefix_tokens < 0:
            raise InputError(f"num_prefix_tokens = {self.num_prefix_tokens} must be 0 or more")
        self.preprocess()  # for its errors

    @classmethod
    def of(cls, preprocess: Preprocess, *, output: str, num_prefix_tokens: int) -> "OnnxSettings":
        """Those of a graph that takes a torch tower's images."""
        return cls(
            size=preprocess.size,
            mean=_of_bytes(preprocess.mean),
            std=_of_bytes(preprocess.std),
            output=output,
            resize=preprocess.resize,
            fit=preprocess.fit,
            interpolation=preprocess.interpolation,
            num_prefix_tokens=num_prefix_tokens,
        )

    def preprocess(self) -> Preprocess:
        """What the graph's images are made by: channels in the order red, green, blue, which the trunk turns round."""
        step = -1 if self.channels == "bgr" else 1
        mean, std = (tuple(float(value / _FULL) for value in values[::step]) for values in (self.mean, self.std))
        return Preprocess(
            size=self.size,
            resize=self.resize or self.size,
            fit=self.fit,
            interpolation=self.interpolation,
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
        )

    def save(self, path: Path) -> None:
        """Write the TOML file, defaults and all."""
        values = {name: value for name, value in vars(self).items() if value not in (None, "")}
        if self.exported is not None:
            values["exported"] = asdict(self.exported)
        write_bytes(path, tomli_w.dumps(values).encode())

    @classmethod
    def read(cls, path: Path) -> "OnnxSettings":
        """Read the TOML file.

        Raises:
            InputError: it is no TOML, or lacks a setting, or has one that is unknown or cannot be used.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        except OSError as error:
            raise InputError(f"cannot read the settings {path}: {error.strerror}") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{path} is not valid TOML: {error}") from error
        try:
            return cls(**_typed(values))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def _of_bytes(channels: Channels) -> Numbers:
    """Numbers for pixels of 0…1 as those for 0…255: the shortest that give them back exactly."""
    first, second, third = map(_of_byte, channels)
    return first, second, third


def _of_byte(value: float) -> Decimal:
    exact = Decimal(repr(value)) * _FULL
    rounded = (round(exact, digits) for digits in range(1, 30))
    return next((number for number in rounded if float(number / _FULL) == value), exact)


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a TOML table as the settings' types."""
    unknown = values.keys() - _READERS.keys()
    if unknown:
        raise InputError(f"the setting {min(unknown)!r} is unknown; choose among {', '.join(_READERS)}")
    missing = {"size", "mean", "std"} - values.keys()
    if missing:
        raise InputError(f"the setting {min(missing)!r} is missing")
    return {name: _READERS[name](name, value) for name, value in values.items()}


def _three(name: str, value: object) -> Numbers:
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(_is_number(number) for number in value):
        raise InputError(f"{name} = {value!r} must be three numbers, one a channel")
    first, second, third = map(Decimal, value)
    return first, second, third


def _is_number(value: object) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool) and Decimal(value).is_finite()


def _exactly(kind: type, name: str, value: object) -> Any:
    if type(value) is not kind:
        raise InputError(f"{name} = {value!r} must be {'a whole number' if kind is int else 'a string'}")
    return value


def _twin(name: str, value: object) -> Twin:
    if not isinstance(value, dict) or value.keys() != {field.name for field in fields(Twin)}:
        raise InputError(f"{name} = {value!r} is not what littune writes there; take it out")
    return Twin(**{key: _exactly(str, key, text) for key, text in value.items()})


_text, _whole = partial(_exactly, str), partial(_exactly, int)
_READERS: dict[str, Callable[[str, object], Any]] = {
    "size": _whole,
    "mean": _three,
    "std": _three,
    "output": _text,
    "resize": _whole,
    "fit": _text,
    "interpolation": _text,
    "layout": _text,
    "output_layout": _text,
    "channels": _text,
    "num_prefix_tokens": _whole,
    "exported": _twin,
}
