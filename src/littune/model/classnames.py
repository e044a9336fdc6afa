"""Class names: what the classes of a set are called in prompts, whatever their folders are called."""

import re
from collections.abc import Sequence
from pathlib import Path

from littune.base.errors import InputError
from littune.model.prompts import BENCHMARK, split_benchmark
from littune.model.shipped import benchmark_names, imagenet_names, wordnet_ids

IMAGENET = "imagenet"
"""The choice that stands for OpenAI's names of ImageNet's 1,000 classes."""

_WORDNET_ID = re.compile(r"n\d{8}", re.ASCII)
_NUM_SHOWN = 3


def load_classnames(choice: str | Path | Sequence[str]) -> tuple[str, ...]:
    """The class names that a choice stands for, in the order of the classes.

    Args:
        choice: ``imagenet`` (OpenAI's names of its 1,000 classes), ``clip_benchmark:NAME[:LANG]`` (clip-benchmark's of
            a data set, in en; ImageNet's, ``imagenet1k``, in ar, cn, it and jp too), a UTF-8 file (one a line; blank
            lines are passed over), or the names.

    Raises:
        InputError: there is no such choice, the file cannot be read, or there are no names.
        MissingExtraError: the names ship in a package that is not installed.
    """
    if not isinstance(choice, str | Path):
        return _checked(choice, "the class names")
    if choice == IMAGENET:
        return imagenet_names()
    if isinstance(choice, str) and choice.startswith(BENCHMARK):
        return benchmark_names(*split_benchmark(choice))
    return _checked(read_name_lines(Path(choice)), str(choice))


def read_name_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file of class names, stripped; those without a name are empty.

    Raises:
        InputError: it cannot be read or is not UTF-8.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        choices = f"{IMAGENET} or {BENCHMARK}NAME"
        raise InputError(f"no class names at {path} ({error.strerror}); give a file, or {choices}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8, one class name a line") from error


def rename(own: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The names to prompt with for a set's own class names, one for each.

    Raises:
        InputError: nothing tells which name is whose (see ``places_of``).
    """
    return tuple(names[place] for place in places_of(own, len(names)))


def places_of(own: Sequence[str], num_names: int) -> tuple[int, ...]:
    """Which of ``num_names`` names belongs to each of a set's own classes, which are mostly called as their folders.

    WordNet ids, as in ImageNet's folders, have their places among ImageNet's 1,000 classes. Whole numbers are the
    places themselves (ImageNet v2 has folders 0 to 999, which sort as 0, 1, 10, …), or count from one where they run
    from 1 to ``num_names``. Anything else goes by its position.

    Args:
        own: the set's own class names, in the order of its labels.
        num_names: how many names there are.

    Raises:
        InputError: a WordNet id is none of ImageNet's, or the counts differ where position decides.
    """
    if num_names == len(wordnet_ids()) and all(map(_WORDNET_ID.fullmatch, own)):
        return _places_of_wordnet_ids(own)
    if all(name.isascii() and name.isdecimal() for name in own):
        numbers = [int(name) for name in own]
        if sorted(numbers) == list(range(1, num_names + 1)):
            return tuple(number - 1 for number in numbers)
        if max(numbers, default=0) < num_names:
            return tuple(numbers)
    if len(own) != num_names:
        shown = ", ".join(own[:_NUM_SHOWN]) + (", …" if len(own) > _NUM_SHOWN else "")
        raise InputError(
            f"the set has {len(own)} classes ({shown}) and there are {num_names} class names; "
            "give one for each class, in the order of the labels"
        )
    return tuple(range(num_names))


def _places_of_wordnet_ids(own: Sequence[str]) -> tuple[int, ...]:
    places = {name: place for place, name in enumerate(wordnet_ids())}
    unknown = [name for name in own if name not in places]
    if unknown:
        raise InputError(f"{unknown[0]} is none of ImageNet's 1,000 classes; give the names of the set's own classes")
    return tuple(places[name] for name in own)


def _checked(names: Sequence[str], where: str) -> tuple[str, ...]:
    given = tuple(name for name in names if name.strip())
    if not given:
        raise InputError(f"{where}: there are no class names; give at least one, one a line")
    return given
