"""How a string names a tower: ``KIND:NAME[@CHECKPOINT]``, one grammar for images and texts."""

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from littune.base.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """A tower's spec, taken apart.

    Attributes:
        text: the spec as it was written.
        kind: what is before the first colon, such as "timm" or "hf".
        name: what the kind is asked for: a model's name, a folder, a size.
        checkpoint: what follows the first "@", or None.
    """

    text: str
    kind: str
    name: str
    checkpoint: str | None = None


def parse_spec(text: str, *, kinds: Collection[str], what: str = "tower") -> Spec:
    """Take ``KIND:NAME[@CHECKPOINT]`` apart.

    A name that exists as a path, "@" and all, is left whole.

    Args:
        text: the spec.
        kinds: the kinds that are known here.
        what: what the spec names, for the message.

    Raises:
        InputError: there is no kind, an unknown one, no name, or nothing after "@".
    """
    kind, colon, rest = text.partition(":")
    if not colon or kind not in kinds:
        raise InputError(f"{what} {text!r} {_kind_problem(kind if colon else '', kinds)}")
    name, at, checkpoint = (rest, "", "") if Path(rest).exists() else rest.partition("@")
    if not name:
        raise InputError(f"{what} {text!r} has no name; write {kind}:NAME")
    if at and not checkpoint:
        raise InputError(f"{what} {text!r} has no checkpoint after '@'; write {kind}:{name}@FILE or {kind}:{name}")
    return Spec(text=text, kind=kind, name=name, checkpoint=checkpoint or None)


def without_checkpoint(spec: Spec, *, what: str = "tower") -> Spec:
    """``spec`` itself, for a kind that takes no checkpoint.

    Raises:
        InputError: it has one.
    """
    if spec.checkpoint is not None:
        raise InputError(f"{what} {spec.text!r}: {spec.kind!r} takes no '@{spec.checkpoint}'; write {spec.kind}:NAME")
    return spec


def is_hf_folder(spec: str) -> bool:
    """Whether ``spec`` is ``hf:DIR`` of a folder that a transformers model was saved to."""
    kind, _, name = spec.partition(":")
    return kind == "hf" and (Path(name).expanduser() / "config.json").is_file()


def _kind_problem(kind: str, kinds: Collection[str]) -> str:
    known = ", ".join(sorted(kinds))
    if not kind:
        return f"does not say what kind it is; write KIND:NAME with KIND one of {known}"
    close = difflib.get_close_matches(kind, kinds, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"write KIND:NAME with KIND one of {known}"
    return f"is of an unknown kind {kind!r}; {hint}"
