"""What the verbs share: the app, kinds of flags, a look at paths, results on stdout."""

import json as json_module
import re
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from littune.base.errors import InputError
from littune.config import Compute

app = App(
    name="littune",
    help="Turn any pre-trained image model into a zero-shot classifier and a search engine.",
    version=version("littune"),
    suppress_keyboard_interrupt=False,
)

Flag = Annotated[bool, Parameter(negative="")]
Count = Annotated[int, Parameter(validator=Number(gte=1))]
Many = Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)]
COMPUTE = Compute()

_NO_PLAIN_PATH = re.compile(r"[:*?\[{]")
"""What a spec has that is no path: ``hf:NAME``, a URL, a pattern."""


def check_there(what: str, *paths: Path, fix: str = "") -> None:
    """Notice a mistyped path before anything heavy is loaded.

    Raises:
        InputError: there is nothing at one of them.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"the {what} {path} does not exist{fix}")


def check_run(*runs: str) -> None:
    """Notice a mistyped run, or whatever else may be named by a path or a spec, before anything heavy is loaded.

    Raises:
        InputError: there is nothing at a path.
    """
    check_there("run", *(Path(run) for run in runs if ":" not in run))


def check_sets(on: tuple[str, ...]) -> None:
    """Notice a mistyped evaluation set.

    Raises:
        InputError: there is nothing at a path.
    """
    from littune.evaluation.sets.registry import split_known

    places = [split_known(spec)[1] for spec in on]
    plain = [Path(place).expanduser() for place in places if not _NO_PLAIN_PATH.search(place)]
    check_there("set", *plain, fix="; a data set of Hugging Face is written hf:NAME")


def split(listed: str) -> list[str]:
    """What is separated by commas."""
    return [item.strip() for item in listed.split(",") if item.strip()]


def show(value: object, *, json: bool) -> None:
    """Print a result: text, or anything as JSON."""
    print(json_module.dumps(value, ensure_ascii=False, indent=1) if json else value)
