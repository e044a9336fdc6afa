"""The command line: one small function a verb.

Results go to stdout (``--json`` for machines), progress and messages to stderr. Bad input is one line on
stderr and exit code 2. Nothing heavy is imported before a verb runs.
"""

import json as json_module
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError
from cyclopts.config import Toml
from cyclopts.validators import Number

from littune.base.errors import InputError, LittuneError
from littune.base.progress import log
from littune.config import Augment, Compute, Pooling, TrainConfig, read_toml

app = App(
    name="littune",
    help="Turn any pre-trained image model into a zero-shot classifier and a search engine.",
    version=version("littune"),
    suppress_keyboard_interrupt=False,
)
app.meta.suppress_keyboard_interrupt = False
# The flags of one verb may also lie in a TOML file: littune VERB --config FILE.
app.meta.group_parameters = "Settings file"

Flag = Annotated[bool, Parameter(negative="")]
Count = Annotated[int, Parameter(validator=Number(gte=1))]
Many = Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)]
_COMPUTE = Compute()

_NO_PLAIN_PATH = re.compile(r"[:*?\[{]")
"""What a spec has that is no path: ``hf:NAME``, a URL, a pattern."""


@app.command
def embed(
    *,
    image: str,
    out: Path,
    pairs: str = "",
    prototypes: Flag = False,
    classes: Path | None = None,
    texts: str = "",
    image_field: str = "",
    pooling: Pooling = "own",
    views: int = 0,
    augment: Augment = "none",
    flip: Flag = False,
    seed: int = 0,
    batch_size: Count = 32,
    strict: Flag = False,
    compute: Compute = _COMPUTE,
) -> None:
    """Embed images (or a tower's own class directions) once, into a store that goes on where it stopped.

    Under torchrun, the processes share the images out and write one store together.

    Args:
        image: The image tower: timm:NAME[@CHECKPOINT], hf:NAME_OR_DIR, package:efficientnet-lite0|1|2.
        out: The store's folder.
        pairs: Where images and texts lie: tar shards, a table, a folder, hf:NAME_OR_DIR.
        prototypes: Store the directions of the tower's own classifier instead of images.
        classes: With --prototypes, a file that says which texts belong to which class.
        texts: Fields that supply texts, separated by commas; by default captions, else the caption.
        image_field: The column of a table that holds the image; by default found by its name.
        pooling: How the tower pools: its own way, or cls, mean, cls+mean.
        views: How many augmented views of each image are stored beside the plain one, to train on.
        augment: What part of the image a view shows: resize, all of it, stretched; inception, random crops.
        flip: Mirror half of the views.
        seed: Decides what is drawn for the views.
        batch_size: Pictures that the tower sees at once.
        strict: Make the first bad sample an error instead of skipping it.
        compute: Where and how precisely the tower runs.
    """
    if bool(pairs) == prototypes:
        raise InputError("embed needs either --pairs SPEC or --prototypes")
    if classes is not None and not prototypes:
        raise InputError("--classes goes with --prototypes")
    if views and prototypes:
        raise InputError("--views goes with --pairs: prototypes are of no image")
    from littune.base.distributed import launched, own_device
    from littune.towers import load_image_tower

    device = own_device(compute.device)
    tower = load_image_tower(image, pooling=pooling, device=device, precision=compute.precision)
    if prototypes:
        from littune.store.prototypes import prototypes as embed_prototypes

        embed_prototypes(tower, out, classes=classes)
        return
    from littune.pairs import open_pairs
    from littune.store.embed import embed as embed_pairs

    source = open_pairs(pairs, texts=_split(texts), image_field=image_field or None)
    embed_pairs(
        tower,
        source,
        out,
        batch_size=batch_size,
        workers=compute.workers,
        strict=strict,
        views=views,
        augment=augment,
        flip=flip,
        seed=seed,
        ranks=launched(),
    )


@app.command
def train(config: TrainConfig, *, dry_run: Flag = False, json: Flag = False) -> None:
    """Tune a text tower to read out an image tower, or both together; goes on where it stopped.

    Args:
        config: What the run is made of.
        dry_run: Say what would be trained and what it would take and cost, and train nothing.
        json: Print the final scores (or what --dry-run says) as JSON.
    """
    if dry_run:
        from littune.tuning.forecast import forecast

        about = forecast(config)
        _print(vars(about) if json else about.to_text(), json=json)
        return
    from littune.apps.training import run_training
    from littune.base.distributed import launched

    result = run_training(config)
    if json and launched().is_first:
        _print({"results": []} if result is None else result.to_dict(), json=True)
    elif result is not None:
        print(result.to_text())


@app.command(name="eval")
def evaluate(
    *,
    run: Path,
    on: Many,
    templates: str = "",
    canonical: Flag = False,
    texts: str = "",
    out: Path | None = None,
    allow_foreign: Flag = False,
    json: Flag = False,
    compute: Compute = _COMPUTE,
) -> None:
    """Score a run: zero-shot classification on labelled sets, retrieval on pairs.

    Args:
        run: The run folder.
        on: Stores or specs of pairs or labelled images.
        templates: Prompt templates: a file, default, class_name_only or clip_best; else the data set's own.
        canonical: Lower-case the prompts of labelled sets and strip their punctuation.
        texts: For pairs, the fields that supply the texts, separated by commas; by default the captions.
        out: Write the scores to this JSON file too.
        allow_foreign: Admit stores that do not say which tower they are of.
        json: Print the scores as JSON, as fractions.
        compute: Where and how precisely towers run.
    """
    _check_there("run", run)
    plain = [Path(spec).expanduser() for spec in on if not _NO_PLAIN_PATH.search(spec)]
    _check_there("set", *plain, fix="; a data set of Hugging Face is written hf:NAME")
    from littune.evaluation import evaluate as evaluate_on
    from littune.model.lit import LiT

    model = LiT.load(run, device=compute.device, precision=compute.precision)
    result = evaluate_on(
        model,
        on,
        templates=templates or None,
        canonical=canonical,
        texts=_split(texts),
        workers=compute.workers,
        allow_foreign=allow_foreign,
    )
    if out is not None:
        result.save(out)
    _print(result.to_dict() if json else result.to_text(), json=json)


@app.command
def encode(
    *images: Path,
    run: Path,
    out: Path,
    texts: Path | None = None,
    json: Flag = False,
    compute: Compute = _COMPUTE,
) -> None:
    """Embed images, or the lines of a text file, as unit float32 rows in a .npy file.

    Args:
        images: Picture files.
        run: The run folder.
        out: The .npy file to write.
        texts: A UTF-8 file with one text a line.
        json: Say what was written as JSON.
        compute: Where and how precisely towers run.
    """
    if bool(images) == (texts is not None):
        raise InputError("encode needs either pictures or --texts FILE")
    _check_there("run", run)
    _check_there("picture", *images)
    from littune.apps.encoding import encode_to_file

    about = encode_to_file(run, out, images=images, texts=texts, device=compute.device, precision=compute.precision)
    _print(about if json else f"{about['rows']} rows of {about['dim']} numbers → {out}", json=json)


@app.command
def classify(
    *images: Path,
    run: Path,
    labels: str,
    templates: str = "",
    json: Flag = False,
    compute: Compute = _COMPUTE,
) -> None:
    """Say which of some labels fits each picture.

    A file that is no picture is named on stderr and stops none of the others; the exit code is 2 then.

    Args:
        images: Picture files.
        run: The run folder.
        labels: The labels, separated by commas.
        templates: Prompt templates: a file, default, class_name_only or clip_best.
        json: Print all labels' scores as JSON.
        compute: Where and how precisely towers run.
    """
    if not images:
        raise InputError("no picture was given; name at least one file")
    _check_there("run", run)
    from littune.apps.classifying import classify_files
    from littune.model.lit import LiT
    from littune.model.prompts import load_templates

    model = LiT.load(run, device=compute.device, precision=compute.precision)
    records, all_read = [], True
    for result in classify_files(model, images, _split(labels), templates=load_templates(templates or "default")):
        if result.problem:
            log(f"littune: {result.problem}")
            all_read = False
        elif json:
            scores = [{"label": score.label, "score": score.score} for score in result.scores]
            records.append({"image": str(result.image), "scores": scores})
        else:
            print(f"{result.image}: " + ", ".join(f"{score.label} {score.score:.1%}" for score in result.scores[:5]))
    if json:
        _print(records, json=True)
    if not all_read:
        sys.exit(2)


@app.command
def search(
    query: str = "",
    *,
    run: Path,
    store: Path,
    k: Annotated[int, Parameter(name=["-k", "--k"], validator=Number(gte=1))] = 5,
    allow_foreign: Flag = False,
    json: Flag = False,
    compute: Compute = _COMPUTE,
) -> None:
    """Find the images of a store that fit some words.

    Args:
        query: The words, quoted.
        run: The run folder.
        store: The store to search.
        k: How many images to show.
        allow_foreign: Admit a store that does not say which tower it is of.
        json: Print the hits as JSON.
        compute: Where and how precisely towers run.
    """
    if not query.strip():
        raise InputError('the words to search for are missing: littune search "two dogs in the snow" --run … --store …')
    _check_there("run", run)
    _check_there("store", store, fix="; make it with: littune embed")
    from littune.apps.search import Index
    from littune.model.lit import LiT

    model = LiT.load(run, device=compute.device, precision=compute.precision)
    hits = Index(model, store, allow_foreign=allow_foreign).search(query, k=k)
    if json:
        _print({"query": query, "hits": [hit.to_dict() for hit in hits]}, json=True)
    else:
        for hit in hits:
            print(f"{hit.score:.3f}  {hit.key}  {hit.source}  {hit.caption}")


@app.command
def info(what: str, *, json: Flag = False) -> None:
    """Say what a path or spec is: a run, a store, an image or text tower, pairs.

    Args:
        what: The path or spec.
        json: Print it as JSON.
    """
    from littune.apps.info import describe, to_text

    about = describe(what)
    _print(about if json else to_text(about), json=json)


@app.command
def demo(*, out: Path = Path("demo"), image: str = "package:efficientnet-lite2") -> None:
    """Train on a tower's own classifier, then classify and search photographs; writes a page that shows it.

    Args:
        out: The folder for the page and what it is made of.
        image: The image tower.
    """
    from littune.apps.demo import run_demo

    run_demo(out, image=image)


@app.meta.default
def _with_settings(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], config: Path | None = None
) -> None:
    """Run a verb, with flags over a settings file over the defaults.

    Args:
        tokens: The verb and its flags.
        config: A TOML file of the verb's settings; flags win over it.
    """
    if config is not None:
        read_toml(config)  # for its errors, which name the file
        app.config = (Toml(config, must_exist=True, use_commands_as_keys=False),)
    app(tokens, exit_on_error=False, print_error=False, result_action="return_value")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 bad input, 130 interrupted."""
    # Threads that spin while they wait are several times slower as soon as another process wants the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app.meta(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, LittuneError) as error:
        message = _left_over(error) if isinstance(error, UnusedCliTokensError) else str(error)
        log(f"littune: {' '.join(message.split())}")
        sys.exit(2)
    except KeyboardInterrupt:
        log("littune: interrupted")
        sys.exit(130)
    finally:
        app.config = ()


def _left_over(error: UnusedCliTokensError) -> str:
    """What was left over on the command line, and what may have been meant."""
    tokens, verb = error.unused_tokens or [], error.command_chain or ()
    fix = f"see littune {' '.join(verb)} --help"
    if "search" in verb:
        fix = 'quote the words, as in "two dogs in the snow"'
    elif any(Path(token).exists() for token in tokens):
        fix = "quote a pattern, as in 'shards/*.tar', for littune to read it instead of the shell"
    more = f" and {len(tokens) - 3} more" if len(tokens) > 3 else ""
    return f"nothing takes {' '.join(tokens[:3])}{more}; {fix}"


def _check_there(what: str, *paths: Path, fix: str = "") -> None:
    """Notice a mistyped path before anything heavy is loaded."""
    for path in paths:
        if not path.exists():
            raise InputError(f"the {what} {path} does not exist{fix}")


def _split(listed: str) -> list[str]:
    return [item.strip() for item in listed.split(",") if item.strip()]


def _print(value: object, *, json: bool) -> None:
    print(json_module.dumps(value, ensure_ascii=False, indent=1) if json else value)
