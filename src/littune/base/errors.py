"""The errors that users meet: one clear line that names the thing, what is wrong and the fix.

The command line prints a ``LittuneError`` as that line and exits with code 2, without a traceback.
A broken promise of our own is an ``AssertionError``, never one of these.
"""


class LittuneError(ValueError):
    """Something the user gave cannot be used; the message names it, what is wrong and the fix."""


class InputError(LittuneError):
    """A spec, file, option or setting is unusable in itself."""


class MismatchError(LittuneError):
    """Two things that must match do not: identities, dimensions, settings of an unfinished folder."""


class MissingExtraError(LittuneError):
    """A feature needs an optional package that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an extra that is not installed: pip install 'littune[{extra}]'")


def first_line(error: Exception) -> str:
    """What a foreign library's error says, in one line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
