"""What the verbs share: the app, kinds of flags, a look at paths, results on stdout."""

import json as json_module
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


def split(listed: str) -> list[str]:
    """What is separated by commas."""
    return [item.strip() for item in listed.split(",") if item.strip()]


def show(value: object, *, json: bool) -> None:
    """Print a result: text, or anything as JSON."""
    print(json_module.dumps(value, ensure_ascii=False, indent=1) if json else value)
