"""The demo: a tower's own classifier teaches a text tower; then real photographs and drawings put it to the test.

No image is trained on. A tenth of the classes is left out of training and scored afterwards, as are OpenMoji's
drawings by their names, and a dozen photographs by labels that a person would type.
"""

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from littune.apps.demo_page import PhotoResult, Picture, QueryResult, Report, ScoreRow, percent, to_html
from littune.apps.demo_pictures import (
    DRAWING_QUERIES,
    LABELS,
    PHOTO_QUERIES,
    PHOTOS,
    check_packages,
    copy_photos,
    find_concepts,
    photo_path,
    render_concepts,
)
from littune.apps.demo_sheet import draw_sheet
from littune.apps.search import Index
from littune.base.files import read_json, write_bytes, write_json
from littune.base.progress import log
from littune.config import TrainConfig
from littune.evaluation.evaluation import evaluate
from littune.evaluation.metrics.ranks import label_ranks, share_within
from littune.evaluation.sets.stores import project
from littune.model.lit import LiT
from littune.model.prompts import DEFAULT_TEMPLATES
from littune.model.zero_shot import zero_shot_classifier
from littune.pairs.open import open_pairs
from littune.store.class_texts import imagenet_classes
from littune.store.embed import embed
from littune.store.prototypes import prototypes
from littune.store.store import EmbeddingStore
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
from littune.tuning.train import fit

_TEXT = "package:minilm"
_SEED = 0
_LEFT_OUT = 10  # one class in so many
_KS = (1, 5, 10)


def run_demo(out: Path, *, image: str) -> None:
    """Train, classify, search and score; print the scores and leave ``index.html`` and ``demo.png`` in ``out``.

    What an earlier run finished is not done again.

    Args:
        out: the demo's folder; what the page is made from lies in ``work`` there.
        image: the spec of a supervised image tower whose classes are ImageNet's.

    Raises:
        MissingExtraError: a package of the extra ``demo`` is not installed.
        InputError: the tower has no classifier whose classes have known names.
    """
    start = time.perf_counter()
    check_packages()
    work = out / "work" / image.replace(":", "-").replace("/", "-")
    clock = StageClock(work / "seconds.json")
    with clock.stage("load the image tower"):
        tower = load_image_tower(image)
    with clock.stage("store prototypes"):
        taught, left_out = store_prototypes(tower, work)
    with clock.stage("embed photographs and drawings"):
        photos, drawings = embed_pictures(tower, work)
    with clock.stage("train"):
        model = train(taught, work / "run")
    with clock.stage("classify, search, score"):
        model.image_tower = tower
        report = make_report(model, taught, left_out, photos, drawings)
    report = replace(report, seconds=clock.seconds)
    write_bytes(out / "index.html", to_html(report).encode())
    draw_sheet(report, out / "demo.png")
    Console().print(scores_table(report.scores))
    log(f"{time.perf_counter() - start:.0f} s in all; the page: {out / 'index.html'}")


class StageClock:
    """How long each stage took, kept in a file: a stage that is not done again keeps its time.

    Attributes:
        seconds: stage → seconds, the stages in the order in which they were begun.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = read_json(path) if path.is_file() else {}
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block; nothing is recorded if it fails."""
        log(f"{name} …")
        start = time.perf_counter()
        yield
        before = self._before.get(name, 0.0)
        assert isinstance(before, float)
        self.seconds[name] = max(before, time.perf_counter() - start)
        write_json(self._path, self._before | self.seconds)


def choose_left_out(num_classes: int) -> frozenset[int]:
    """The classes that are left out of training, the same ones every time."""
    chosen = np.random.default_rng(_SEED).choice(num_classes, num_classes // _LEFT_OUT, replace=False)
    return frozenset(map(int, chosen))


def store_prototypes(tower: ImageTower, work: Path) -> tuple[EmbeddingStore, EmbeddingStore]:
    """Stores of the class directions to train on, and of those that are left out."""
    num_classes = len(tower.classifier.weight) if tower.classifier else 0
    left_out = choose_left_out(num_classes)
    taught = prototypes(tower, work / "taught", exclude=left_out)
    return taught, prototypes(tower, work / "left-out", exclude=frozenset(range(num_classes)) - left_out)


def embed_pictures(tower: ImageTower, work: Path) -> tuple[EmbeddingStore, EmbeddingStore]:
    """Stores of the photographs, each with its label, and of OpenMoji's drawings of things, each with its name."""
    copy_photos(work / "photographs")
    render_concepts(find_concepts(), work / "drawings")
    photos = embed(tower, open_pairs(work / "photographs"), work / "photographs-store")
    return photos, embed(tower, open_pairs(work / "drawings"), work / "drawings-store")


def train(taught: EmbeddingStore, out: Path) -> LiT:
    """Train a head on the prototypes: tuning the whole text tower took minutes and raised no score here."""
    return fit(TrainConfig(store=(str(taught.path),), out=out, text=_TEXT, locking="LL", seed=_SEED))


def make_report(
    model: LiT, taught: EmbeddingStore, left_out: EmbeddingStore, photos: EmbeddingStore, drawings: EmbeddingStore
) -> Report:
    """Classify, search and score."""
    classified = classify_photos(model)
    shown_photos = {photo_path(photo).stem: Picture(name=photo.label, path=photo_path(photo)) for photo in PHOTOS}
    shown_drawings = {concept.key: Picture(name=concept.name, path=concept.svg) for concept in find_concepts()}
    return Report(
        photos=classified,
        labels=LABELS,
        photo_queries=search(model, photos, PHOTO_QUERIES, shown_photos, k=3),
        drawing_queries=search(model, drawings, DRAWING_QUERIES, shown_drawings, k=6),
        num_drawings=drawings.num_rows,
        scores=[
            *score_classes(model, left_out),
            score_photos(classified),
            *score_retrieval(model, photos, ("label", "photograph")),
            *score_retrieval(model, drawings, ("name", "drawing")),
            score_own_classifier(model.image_tower, drawings),
        ],
        facts=_facts(model, taught, left_out),
        seconds={},
    )


def classify_photos(model: LiT) -> list[PhotoResult]:
    """What each photograph is, among all labels."""
    paths = [photo_path(photo) for photo in PHOTOS]
    rows = model.classify_many(paths, LABELS)
    return [
        PhotoResult(photo=photo, path=path, scores=[(score.label, score.score) for score in row])
        for photo, path, row in zip(PHOTOS, paths, rows, strict=True)
    ]


def search(
    model: LiT, store: EmbeddingStore, queries: Sequence[str], shown: Mapping[str, Picture], *, k: int
) -> list[QueryResult]:
    """The pictures nearest to each query; ``shown`` says by key what to show for a row of the store."""
    found = Index(model, store).search_many(list(queries), k=k)
    return [
        QueryResult(words=words, found=[shown[hit.key] for hit in hits])
        for words, hits in zip(queries, found, strict=True)
    ]


def score_classes(model: LiT, left_out: EmbeddingStore) -> list[ScoreRow]:
    """Whether the direction of a class that was left out finds its name, among all names and among the left-out."""
    labels, names = left_out.labels(), left_out.classnames
    assert labels is not None and names is not None
    directions = np.concatenate(list(project(model, left_out)))
    classifier = zero_shot_classifier(model.encode_text, names, DEFAULT_TEMPLATES)
    ranks = label_ranks(directions @ classifier.T, labels)
    ranks_among_left_out = label_ranks(directions @ classifier[labels].T, np.arange(len(labels)))
    return [
        _score_row("left-out class → its name, among all names", ranks, len(names)),
        _score_row("left-out class → its name, among the left-out", ranks_among_left_out, len(labels)),
    ]


def score_retrieval(model: LiT, store: EmbeddingStore, words: tuple[str, str]) -> list[ScoreRow]:
    """Whether a text finds its picture, and a picture its text; ``words`` says what the two are called."""
    text, picture = words
    metrics = evaluate(model, store, ks=_KS).results[0].metrics
    tasks = {f"{text} → its {picture}": "text_to_image", f"{picture} → its {text}": "image_to_text"}
    return [
        ScoreRow(
            task=task,
            num_questions=store.num_rows,
            num_answers=store.num_rows,
            hits={k: metrics[f"{direction}/recall@{k}"] for k in _KS},
        )
        for task, direction in tasks.items()
    ]


def score_own_classifier(tower: ImageTower, drawings: EmbeddingStore) -> ScoreRow:
    """What the tower's own classifier, trained on photographs of its classes, makes of drawings of them."""
    assert tower.classifier is not None
    classes = imagenet_classes(tower.classifier.label_set)
    index = {text.lower(): number for number, texts in classes.items() for text in texts.texts}
    rows = [(row, index[name.lower()]) for row, (name,) in enumerate(drawings.texts()) if name.lower() in index]
    numbers, labels = np.asarray(rows).T
    embeddings = torch.from_numpy(drawings.embeddings()[numbers].astype(np.float32))
    scores = torch.nn.functional.linear(embeddings, tower.classifier.weight, tower.classifier.bias).numpy()
    task = "for comparison, the image tower's own classifier: drawing → its class"
    return _score_row(task, label_ranks(scores, labels), len(classes))


def score_photos(photos: Sequence[PhotoResult]) -> ScoreRow:
    """Whether a photograph gets the label that a person would type."""
    ranks = [[label for label, _ in result.scores].index(result.photo.label) for result in photos]
    return _score_row("photograph → its label, with 12 wrong ones", np.asarray(ranks), len(LABELS))


def scores_table(rows: Sequence[ScoreRow]) -> Table:
    """The scores in percent, for the terminal."""
    table = Table(title="zero-shot, % (chance)", title_justify="left")
    table.add_column("the right one is among the first …")
    for name in ("asked", "answers", *map(str, _KS)):
        table.add_column(name, justify="right")
    for row in rows:
        cells = [f"{percent(row.hits[k])} ({percent(row.chance(k))})" for k in _KS]
        table.add_row(row.task, str(row.num_questions), f"{row.num_answers:,}", *cells)
    return table


def _score_row(task: str, ranks: np.ndarray, num_answers: int) -> ScoreRow:
    hits = {k: share_within(ranks, k) for k in _KS}
    return ScoreRow(task=task, num_questions=len(ranks), num_answers=num_answers, hits=hits)


def _facts(model: LiT, taught: EmbeddingStore, left_out: EmbeddingStore) -> Mapping[str, str]:
    num_texts = len({text for texts in taught.texts() for text in texts})
    return {
        "image tower": f"{model.reference.spec}, locked, {model.dim} numbers an image",
        "text tower": f"{model.text.spec}, locked, with a linear head that was trained",
        "trained on": f"{taught.num_rows:,} class directions and {num_texts:,} distinct texts, no image",
        "left out": f"{left_out.num_rows:,} classes, drawn at random",
        "machine": f"{os.cpu_count()} CPU cores ({platform.machine()}), torch {version('torch')}",
    }
