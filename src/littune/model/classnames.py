"""Class names: what the classes of a set are called in prompts, whatever their folders are called."""

import re
from collections.abc import Sequence
from pathlib import Path

from littune.base.errors import InputError
from littune.model.prompts import BENCHMARK, canonicalize, split_benchmark
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


def are_wordnet_ids(own: Sequence[str]) -> bool:
    """Whether a set's own class names are WordNet ids, as n01440764."""
    return all(map(_WORDNET_ID.fullmatch, own))


def rename(own: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The names to prompt with for a set's own class names, one for each.

    Raises:
        InputError: nothing tells which name is whose (see ``places_of``).
    """
    return tuple(names[place] for place in places_of(own, names))


def places_of(own: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
    """Which of ``names`` belongs to each of a set's own classes, which are mostly called as their folders.

    WordNet ids, as in ImageNet's folders, have their places among ImageNet's 1,000 classes. Whole numbers are the
    places themselves (ImageNet v2 has folders 0 to 999, which sort as 0, 1, 10, …), or count from one where they run
    from 1 to the number of names. The same names in another order or spelling (``american_bulldog``) are matched;
    anything else goes by its position.

    Args:
        own: the set's own class names, in the order of its labels.
        names: the names to choose from.

    Raises:
        InputError: a WordNet id is none of ImageNet's, or, where position decides, the counts differ or most of the
            names that occur on both sides stand elsewhere.
    """
    if len(names) == len(wordnet_ids()) and are_wordnet_ids(own):
        return _places_of_wordnet_ids(own)
    numbers = _places_of_numbers(own, len(names))
    if numbers is not None:
        return numbers
    if len(own) != len(names):
        shown = ", ".join(own[:_NUM_SHOWN]) + (", …" if len(own) > _NUM_SHOWN else "")
        raise InputError(
            f"the set has {len(own)} classes ({shown}) and there are {len(names)} class names; "
            "give one for each class, in the order of the labels"
        )
    return _places_by_name_or_position([canonicalize(name) for name in own], [canonicalize(name) for name in names])


def _places_of_wordnet_ids(own: Sequence[str]) -> tuple[int, ...]:
    places = {name: place for place, name in enumerate(wordnet_ids())}
    unknown = [name for name in own if name not in places]
    if unknown:
        raise InputError(f"{unknown[0]} is none of ImageNet's 1,000 classes; give the names of the set's own classes")
    return tuple(places[name] for name in own)


def _places_of_numbers(own: Sequence[str], num_names: int) -> tuple[int, ...] | None:
    """None where the classes are not all called by numbers, or by larger ones than there are names."""
    if not all(name.isascii() and name.isdecimal() for name in own):
        return None
    numbers = tuple(int(name) for name in own)
    if sorted(numbers) == list(range(1, num_names + 1)):
        return tuple(number - 1 for number in numbers)
    return numbers if max(numbers, default=0) < num_names else None


def _places_by_name_or_position(own: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
    if len(set(names)) == len(names) and set(own) == set(names):
        return tuple(names.index(name) for name in own)
    common = [(mine, its) for mine, its in zip(own, names, strict=True) if mine in names]
    moved = [mine for mine, its in common if mine != its]
    # Two classes may well share a name (a cardigan is a dog, too); many that stand elsewhere are another order.
    if 2 * len(moved) > len(common):
        raise InputError(
            f"the class names are in another order than the set's classes ({moved[0]!r} stands elsewhere); "
            "give one for each class, in the order of the labels"
        )
    return tuple(range(len(own)))


def _checked(names: Sequence[str], where: str) -> tuple[str, ...]:
    given = tuple(name for name in names if name.strip())
    if not given:
        raise InputError(f"{where}: there are no class names; give at least one, one a line")
    return given
