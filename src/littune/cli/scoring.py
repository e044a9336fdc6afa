"""The verbs that score: eval, compare."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from littune.base.errors import InputError
from littune.cli.common import COMPUTE, Flag, Many, app, check_run, check_sets, show, split
from littune.config import Check, Compute

Checks = Annotated[tuple[Check, ...], Parameter(negative="", consume_multiple=True)]


@app.command(name="eval")
def evaluate(
    *,
    run: str,
    on: Many,
    templates: str = "",
    classnames: str = "",
    canonical: Flag = False,
    texts: str = "",
    lang: str = "",
    check: Checks = (),
    seen: Many = (),
    report: Path | None = None,
    out: Path | None = None,
    allow_foreign: Flag = False,
    json: Flag = False,
    compute: Compute = COMPUTE,
) -> None:
    """Score a run: zero-shot classification on labelled sets, retrieval on pairs, with 95 % intervals.

    Args:
        run: The run: a folder, hf:NAME on the hub, or lit:PATH.npz, a published checkpoint.
        on: Stores or specs of pairs or labelled images; NAME:PATH for a set of the paper (littune info sets).
        templates: Prompt templates: a file, default, class_name_only, clip_best, clip_paper; else the set's own.
        classnames: What the classes are called: a file, imagenet, clip_benchmark:NAME; FILE.{lang}.txt with --lang.
        canonical: Lower-case the prompts of labelled sets and strip their punctuation.
        texts: For pairs, the fields that supply the texts, separated by commas; by default the captions.
        lang: Score in these languages too, separated by commas, as in de,fr.
        check: What else to look at: near-duplicates of training images, hubness normalised by training queries, a
            probe of the image tower alone, the prompts; or all.
        seen: Training stores to check against; by default those that the run names.
        report: Write a page for people to this HTML file.
        out: Write the scores to this JSON file too.
        allow_foreign: Admit stores that do not say which tower they are of.
        json: Print the scores as JSON, as fractions.
        compute: Where and how precisely towers run.
    """
    check_run(run)
    check_sets(on)
    _check_outputs(report, out)
    from littune.evaluation import evaluate as evaluate_on
    from littune.model.lit import LiT

    result = evaluate_on(
        LiT.load(run, device=compute.device, precision=compute.precision),
        on,
        templates=templates or None,
        classnames=classnames or None,
        canonical=canonical,
        texts=split(texts),
        languages=split(lang),
        checks=check,
        seen=seen or None,
        allow_foreign=allow_foreign,
        workers=compute.workers,
    )
    for path in filter(None, (report, out)):
        result.save(path)
    show(result.to_dict() if json else result.to_text(), json=json)


@app.command
def compare(
    *runs: str,
    on: Many,
    templates: str = "",
    classnames: str = "",
    canonical: Flag = False,
    texts: str = "",
    lang: str = "",
    report: Path | None = None,
    out: Path | None = None,
    allow_foreign: Flag = False,
    json: Flag = False,
    compute: Compute = COMPUTE,
) -> None:
    """Put runs side by side on the same sets, each with a paired test against the first.

    Args:
        runs: The run folders, at least two.
        on: Stores or specs of pairs or labelled images; NAME:PATH for a set of the paper (littune info sets).
        templates: Prompt templates, as for eval.
        classnames: What the classes are called, as for eval.
        canonical: Lower-case the prompts of labelled sets and strip their punctuation.
        texts: For pairs, the fields that supply the texts, separated by commas; by default the captions.
        lang: Compare in these languages too, separated by commas.
        report: Write a page for people to this HTML file.
        out: Write the scores to this JSON file too.
        allow_foreign: Admit stores that do not say which tower they are of.
        json: Print the scores as JSON, as fractions.
        compute: Where and how precisely towers run.
    """
    if len(runs) < 2:
        raise InputError("there is nothing to compare: name at least two runs")
    check_run(*runs)
    check_sets(on)
    _check_outputs(report, out)
    from littune.evaluation import compare as compare_on
    from littune.model.lit import LiT

    names = [Path(run).resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = list(runs)
    models = [LiT.load(run, device=compute.device, precision=compute.precision) for run in runs]
    result = compare_on(
        dict(zip(names, models, strict=True)),
        on,
        templates=templates or None,
        classnames=classnames or None,
        canonical=canonical,
        texts=split(texts),
        languages=split(lang),
        allow_foreign=allow_foreign,
        workers=compute.workers,
    )
    for path in filter(None, (report, out)):
        result.save(path)
    show(result.to_dict() if json else result.to_text(), json=json)


def _check_outputs(report: Path | None, out: Path | None) -> None:
    """Notice before anything is computed what could not be written after it."""
    for name, path, suffix in (("report", report, ".html"), ("out", out, ".json")):
        if path is not None and path.suffix.lower() != suffix:
            raise InputError(f"--{name} {path} is not usable: it must end in {suffix}")
