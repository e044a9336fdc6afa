"""The cards of stores and of image towers, and what every card consists of."""

from collections.abc import Sequence
from dataclasses import dataclass

from littune.apps.card.licences import origin_of
from littune.apps.card.markdown import code, name, table
from littune.store.store import EmbeddingStore
from littune.towers.image.tower import Identity, ImageTower

IDENTITY = "identity (SHA-256)"
MADE_FROM = "made from the weights (SHA-256)"
"""What stands for the identity of an export: another format's may be another, as with int8 weights."""

DATA_LICENCE = "not known to littune: ask whoever published the pictures and the texts"


@dataclass(frozen=True, kw_only=True)
class Body:
    """A card between its head and how to load it."""

    sections: Sequence[str]
    base_models: Sequence[str] = ()
    languages: Sequence[str] = ()


def of_tower(tower: ImageTower, to: str) -> Body:
    """The card of an image tower that was exported to ``to``."""
    origin, identity = origin_of(tower.spec), _identity(tower.spec, tower.identity, MADE_FROM)
    return Body(
        sections=[
            f"# {name(tower.spec)}, for {to}",
            "An image tower: pictures in, embeddings out, as littune runs it. It is for searching and comparing "
            "pictures, and knows no texts; it has the gaps and biases of what it was trained on.",
            table(("", "image tower"), [*identity, ("licence", origin.licence)]),
        ],
        base_models=(origin.base_model,),
    )


def of_store(store: EmbeddingStore, to: str) -> Body:
    """The card of a store that was exported to ``to``."""
    made = store.manifest.settings if store.manifest else None
    identity = _identity(made.tower, made.identity) if made else [("dimensions", str(store.dim))]
    rows = [
        ("rows", f"{store.num_rows:,}"),
        ("kind", store.kind),
        ("made from", name(made.pairs) if made else "not known"),
        *identity,
        ("licence of the image tower", origin_of(made.tower).licence if made else "not known"),
        ("licence of the data", DATA_LICENCE),
    ]
    return Body(
        sections=[
            f"# {code(store.path.resolve().name)}, as {to}",
            "Embeddings of pictures with the keys and texts of their rows, made with littune. They are an image "
            "tower's pooled outputs, not of unit length; only embeddings of the same tower can be compared with them.",
            table(("", "embeddings"), rows),
        ]
    )


def _identity(spec: str, identity: Identity, which: str = IDENTITY) -> list[tuple[str, str]]:
    return [
        ("spec", name(spec)),
        (which, code(identity.weights)),
        ("pooling", code(identity.pooling)),
        ("dimensions", str(identity.dim)),
    ]
