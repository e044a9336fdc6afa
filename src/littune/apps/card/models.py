"""The card of a model: its towers, its training, its scores, its licences."""

from dataclasses import fields

from littune.apps.card.languages import languages_of
from littune.apps.card.licences import Origin, origin_of, origin_of_run
from littune.apps.card.markdown import bullets, code, name, table
from littune.apps.card.parts import DATA_LICENCE, IDENTITY, MADE_FROM, Body
from littune.apps.card.records import Records, read_records
from littune.apps.card.scores import scores_table
from littune.config import TrainConfig
from littune.model.lit import LiT
from littune.towers.image.tower import Identity

_LOCKING = {"L": "locked", "U": "pre-trained, then tuned", "u": "trained from scratch"}
_TOLD_ELSEWHERE = {"store", "pairs", "image", "text", "texts", "val", "out", "from_run", "center_on", "image_field"}
_HOW_TO_RUN = {"device", "workers", "keep", "tensorboard", "bundle"}
_ALWAYS_TOLD = {"locking", "loss", "batch_size", "epochs", "optimizer", "captions", "max_tokens", "seed"}


def of_model(model: LiT, title: str, *, exported: bool, carried: bool) -> Body:
    """The card of a model.

    Args:
        model: the model.
        title: markdown.
        exported: whether the folder is in another format than a run's.
        carried: whether the folder is a run's that carries the image tower.
    """
    records = read_records(model.folder)
    image, text = _origins(model, records)
    sections = [
        f"# {title}",
        "An image tower and a text tower that share a space, made with littune (LiT: Zhai et al. 2021). It says which "
        "of any texts suits a picture best, and finds the pictures that suit a text.",
        "## Towers",
        _towers(model, records, exported=exported, carried=carried),
        *_training(records),
        *_scores(records),
        "## Licences",
        table(
            ("part", "what", "licence"),
            [
                ("image tower", name(model.reference.spec), image.licence),
                ("text tower", name(model.text.spec), text.licence),
                ("data", "what it was trained on", DATA_LICENCE),
            ],
        ),
        "## Use and limits",
        "It is meant for sorting, searching and labelling pictures where a mistake costs little and a person can look "
        "again; not for identifying people or deciding about them. It knows no more than its image tower saw and its "
        "training texts named, gaps and biases included, and nothing is known of it beyond the scores above: measure "
        "it on your own pictures first.",
    ]
    return Body(
        sections=sections, base_models=(image.base_model, text.base_model), languages=languages_of(records.data)
    )


def _origins(model: LiT, records: Records) -> tuple[Origin, Origin]:
    """Where the towers come from; of a run that went on from another, that run knows what it drew and tuned."""
    begun = records.settings.get("from", "")
    if begun:
        return origin_of_run(begun), origin_of_run(begun)
    image_letter, text_letter = records.settings.get("locking", "LU")
    return (
        origin_of(model.reference.spec, drawn=image_letter == "u"),
        origin_of(model.text.spec, drawn=text_letter == "u" and model.text.spec.startswith("scratch")),
    )


def _towers(model: LiT, records: Records, *, exported: bool, carried: bool) -> str:
    locking = records.settings.get("locking", "")
    image, text = (_LOCKING.get(letter, "") for letter in (locking or "--"))
    identity = model.reference.identity
    image_weights = code(identity.weights) if identity else "not known"
    weights = ("weights", "in this folder" if carried else "loaded by the spec", "in this folder")
    rows = [
        ("spec", name(model.reference.spec), name(model.text.spec)),
        *([] if exported else [weights]),
        (MADE_FROM if exported else IDENTITY, image_weights, code(model.text.identity)),
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
