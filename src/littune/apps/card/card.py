"""README.md: what a run or an export is, of what it was made, how good it is, under which licences, how to load it.

The head is Hugging Face's, so that a folder that is pushed is found and shown as what it is. A card says nothing
that the run does not say, names no folder of its owner's, and comes out the same each time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from littune.apps.card.languages import languages_of
from littune.apps.card.licences import Origin, origin_of
from littune.apps.card.markdown import bullets, code, fenced, front_matter, name, prose, table
from littune.apps.card.records import Records, read_records
from littune.apps.card.scores import scores_table
from littune.base.files import write_bytes
from littune.config import TrainConfig
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore
from littune.towers.image.tower import Identity, ImageTower

CARD = "README.md"

_LOCKING = {"L": "locked", "U": "pre-trained, then tuned", "u": "trained from scratch"}
_TOLD_ELSEWHERE = {"store", "pairs", "image", "text", "texts", "val", "out", "from_run", "center_on", "image_field"}
_HOW_TO_RUN = {"device", "workers", "keep", "tensorboard", "bundle"}
_ALWAYS_TOLD = {"locking", "loss", "batch_size", "epochs", "optimizer", "captions", "max_tokens", "seed"}
_DATA_LICENCE = "not known to littune: ask whoever published the pictures and the texts"

_LOAD_RUN = """\
import littune as lt

model = lt.LiT.load("RUN")  # this folder, or hf:NAME where it lies on the hub
print(model.classify("photo.jpg", ["a cat", "a dog"]))
"""


@dataclass(frozen=True, kw_only=True)
class _Head:
    """What the hub is told of an export: the library that reads it, and what it is for."""

    library: str
    pipeline: str = "zero-shot-image-classification"


_OF_MODELS = {
    "littune": _Head(library="littune"),
    "npz": _Head(library="littune"),
    "onnx": _Head(library="onnx"),
    "open_clip": _Head(library="open_clip"),
    "sentence-transformers": _Head(library="sentence-transformers"),
    "transformers": _Head(library="transformers"),
}
_OF_TOWERS = _Head(library="onnx", pipeline="image-feature-extraction")
_OF_STORES = _Head(library="", pipeline="")


def write_run_card(model: LiT) -> None:
    """Write the card of the run that ``model`` was loaded from into its folder.

    Raises:
        LittuneError: the folder cannot be written.
    """
    assert model.folder is not None, "a run has a folder"
    title = code(model.folder.resolve().name)
    _write(model.folder, _OF_MODELS["littune"], _of_model(model, title, carried=_carries(model)), _LOAD_RUN, ())


def write_export_card(
    folder: Path,
    what: LiT | EmbeddingStore | ImageTower,
    *,
    to: str,
    how_to_load: str,
    notes: Sequence[str] = (),
) -> None:
    """Write the card of an export.

    Args:
        folder: the exported folder.
        what: what was exported.
        to: the target's name.
        how_to_load: Python code.
        notes: what a user should know of it.

    Raises:
        LittuneError: the folder cannot be written.
    """
    if isinstance(what, LiT):
        of = code(what.folder.resolve().name) if what.folder else name(what.text.spec)
        carried = True if to == "littune" else None
        _write(folder, _OF_MODELS[to], _of_model(what, f"{of}, for {to}", carried=carried), how_to_load, notes)
    elif isinstance(what, ImageTower):
        _write(folder, _OF_TOWERS, _of_tower(what, to), how_to_load, notes)
    else:
        _write(folder, _OF_STORES, _of_store(what, to), how_to_load, notes)


@dataclass(frozen=True, kw_only=True)
class _Body:
    """A card between its head and how to load it."""

    sections: Sequence[str]
    base_models: Sequence[str] = ()
    languages: Sequence[str] = ()


def _write(folder: Path, head: _Head, body: _Body, how_to_load: str, notes: Sequence[str]) -> None:
    top = front_matter(
        library_name=head.library,
        pipeline_tag=head.pipeline,
        tags=["littune", "lit", "contrastive-learning", "image-text-retrieval"],
        license="other",
        license_name="licence-of-each-part",
        language=sorted(body.languages),
        base_model=[model for model in body.base_models if model],
    )
    load = ["## How to load it", *([bullets(map(prose, notes))] if notes else []), fenced(how_to_load, "python")]
    write_bytes(folder / CARD, ("\n\n".join([top, *body.sections, *load]) + "\n").encode("utf-8", "replace"))


def _carries(model: LiT) -> bool:
    return model.reference.weights is not None or model.image is not None


def _of_model(model: LiT, title: str, *, carried: bool | None) -> _Body:
    """The card of a model.

    Args:
        model: the model.
        title: markdown.
        carried: whether the folder is a run's that carries the image tower; None where it is no run's.
    """
    records = read_records(model.folder)
    image, text = _origins(model, records)
    sections = [
        f"# {title}",
        "An image tower and a text tower that share a space, made with littune (LiT: Zhai et al. 2021). It says which "
        "of any texts suits a picture best, and finds the pictures that suit a text.",
        "## Towers",
        _towers(model, records, carried),
        *_training(records),
        *_scores(records),
        "## Licences",
        table(
            ("part", "what", "licence"),
            [
                ("image tower", name(model.reference.spec), image.licence),
                ("text tower", name(model.text.spec), text.licence),
                ("data", "what it was trained on", _DATA_LICENCE),
            ],
        ),
        "## Use and limits",
        "It is meant for sorting, searching and labelling pictures where a mistake costs little and a person can look "
        "again; not for identifying people or deciding about them. It knows no more than its image tower saw and its "
        "training texts named, gaps and biases included, and nothing is known of it beyond the scores above: measure "
        "it on your own pictures first.",
    ]
    return _Body(
        sections=sections, base_models=(image.base_model, text.base_model), languages=languages_of(records.data)
    )


def _origins(model: LiT, records: Records) -> tuple[Origin, Origin]:
    image_letter, text_letter = records.settings.get("locking", "LU")
    return (
        origin_of(model.reference.spec, drawn=image_letter == "u"),
        origin_of(model.text.spec, drawn=text_letter == "u" and model.text.spec.startswith("scratch")),
    )


def _towers(model: LiT, records: Records, carried: bool | None) -> str:
    locking = records.settings.get("locking", "")
    image, text = (_LOCKING.get(letter, "") for letter in (locking or "--"))
    identity = model.reference.identity
    weights = ("weights", "in this folder" if carried else "loaded by the spec", "in this folder")
    rows = [
        ("spec", name(model.reference.spec), name(model.text.spec)),
        *([] if carried is None else [weights]),
        ("identity (SHA-256)", code(identity.weights) if identity else "not known", code(model.text.identity)),
        ("dimensions", str(len(model.center)), str(model.text.dim)),
        ("pooling", code(model.reference.pooling), code(model.text.pooling)),
        ("reads", _pixels(identity), f"{model.text.max_tokens} tokens at most"),
        ("head", _head(model.image_head is not None), _head(model.text_head is not None)),
        *([("in training", image, text)] if locking else []),
    ]
    bias = "" if model.bias is None else f" and the bias {float(model.bias.detach()):.4g}"
    shared = f"They share {model.dim} dimensions, with the temperature {model.logit_scale:.4g}{bias}."
    return f"{table(('', 'image tower', 'text tower'), rows)}\n\n{shared}"


def _pixels(identity: Identity | None) -> str:
    """The preprocessing, as far as it is known: prototypes and foreign stores do not say."""
    return f"pixels prepared as {code(identity.preprocess[:12])}" if identity and identity.preprocess else "not known"


def _head(there: bool) -> str:
    return "linear" if there else "none"


def _training(records: Records) -> list[str]:
    if not records.settings:
        return ["## Training", "These weights were not trained here; what they were trained on, their publisher says."]
    rows = [
        (
            name(source.name),
            source.kind or "not there any more",
            "not counted" if source.rows is None else f"{source.rows:,}",
            name(source.pairs),
            name(source.tower),
            code(", ".join(source.texts)) if source.texts else "the source's own",
            f"{source.weight:g}",
        )
        for source in records.data
    ]
    head = ("trained on", "kind", "rows", "made from", "image tower", "texts", "weight")
    return [
        "## Training",
        *([table(head, rows)] if rows else []),
        *([_cost(records)] if records.cost else []),
        *_begun(records),
        bullets(_settings(records)),
        "`config.toml` holds all settings: `littune train --config config.toml` repeats the run.",
    ]


def _cost(records: Records) -> str:
    cost = records.cost
    processes = cost.get("processes", 1)
    return (
        f"It saw {cost.get('pairs seen', 0):,} pairs in {cost.get('seconds', 0):,} s, on {processes} "
        f"process{'es' if processes != 1 else ''} with at most {cost.get('peak memory, bytes', 0) / 1e9:.1f} GB each."
    )


def _begun(records: Records) -> list[str]:
    begun = records.settings.get("from", "")
    return [f"It went on from the weights of the run {name(begun)}."] if begun else []


def _settings(records: Records) -> list[str]:
    """What was set, and what one always wants to know."""
    settings, told = records.settings, []
    for field in fields(TrainConfig):
        if field.name in _TOLD_ELSEWHERE | _HOW_TO_RUN or field.name not in settings:
            continue
        if field.name in _ALWAYS_TOLD or settings[field.name] != _plain(field.default):
            told.append(f"{code(field.name)}: {name(str(settings[field.name]))}")
    return told


def _plain(default: object) -> object:
    """A setting's default as TOML gives it back."""
    return list(default) if isinstance(default, tuple) else default


def _scores(records: Records) -> list[str]:
    if not records.results:
        return ["## Scores", "It was scored on nothing when it was made; `littune eval` scores it."]
    chosen = records.settings.get("select") == "best"
    flattered = "The weights were chosen by scores on these sets, which flatters them." if chosen else ""
    about = f"Percent, with 95 % bootstrap intervals over the images. {flattered}".strip()
    return ["## Scores", about, scores_table(records.results)]


def _of_tower(tower: ImageTower, to: str) -> _Body:
    origin = origin_of(tower.spec)
    return _Body(
        sections=[
            f"# {name(tower.spec)}, for {to}",
            "An image tower: pictures in, embeddings out, as littune runs it. It is for searching and comparing "
            "pictures, and knows no texts; it has the gaps and biases of what it was trained on.",
            table(("", "image tower"), [*_identity(tower.spec, tower.identity), ("licence", origin.licence)]),
        ],
        base_models=(origin.base_model,),
    )


def _of_store(store: EmbeddingStore, to: str) -> _Body:
    made = store.manifest.settings if store.manifest else None
    identity = _identity(made.tower, made.identity) if made else [("dimensions", str(store.dim))]
    rows = [
        ("rows", f"{store.num_rows:,}"),
        ("kind", store.kind),
        ("made from", name(made.pairs) if made else "not known"),
        *identity,
        ("licence of the image tower", origin_of(made.tower).licence if made else "not known"),
        ("licence of the data", _DATA_LICENCE),
    ]
    return _Body(
        sections=[
            f"# {code(store.path.resolve().name)}, as {to}",
            "Embeddings of pictures with the keys and texts of their rows, made with littune. They are an image "
            "tower's pooled outputs, not of unit length; only embeddings of the same tower can be compared with them.",
            table(("", "embeddings"), rows),
        ]
    )


def _identity(spec: str, identity: Identity) -> list[tuple[str, str]]:
    return [
        ("spec", name(spec)),
        ("identity (SHA-256)", code(identity.weights)),
        ("pooling", code(identity.pooling)),
        ("dimensions", str(identity.dim)),
    ]
