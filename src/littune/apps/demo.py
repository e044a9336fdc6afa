"""The demo: a tower's own classifier teaches a text tower; then real photographs and drawings put it to the test.

No image is trained on. A tenth of the classes is left out of training and scored afterwards, as are OpenMoji's
drawings by their names, and a dozen photographs by labels that a person would type.
"""

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from littune.apps.demo_page import PhotoResult, QueryResult, Report, ScoreRow, percent, to_html
from littune.apps.demo_pictures import (
    LABELS,
    PHOTOS,
    QUERIES,
    check_packages,
    find_concepts,
    photo_path,
    render_concepts,
)
from littune.apps.demo_sheet import draw_sheet
from littune.apps.search import Index
from littune.base.files import read_json, write_bytes, write_json
from littune.base.progress import log
from littune.config import TrainConfig
from littune.evaluation.evaluate import evaluate
from littune.evaluation.metrics import label_ranks, share_within
from littune.evaluation.sets import project
from littune.model.lit import LiT
from littune.model.prompts import DEFAULT_TEMPLATES
from littune.model.zero_shot import zero_shot_classifier
from littune.pairs.open import open_pairs
from littune.store.embed import embed
from littune.store.prototypes import prototypes
from littune.store.store import EmbeddingStore
from littune.towers.image import ImageTower
from littune.towers.image_sources import load_image_tower
from littune.tuning.train import fit

_TEXT = "package:minilm"
_SEED = 0
_LEFT_OUT = 10  # one class in so many
_FOUND = 6
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
    check_packages()
    work = out / "work" / image.replace(":", "-").replace("/", "-")
    clock = StageClock(work / "seconds.json")
    with clock.stage("load the image tower"):
        tower = load_image_tower(image)
    with clock.stage("store prototypes"):
        taught, left_out = store_prototypes(tower, work)
    with clock.stage("render and embed drawings"):
        drawings = embed_drawings(tower, work)
    model = train(work, taught, drawings, clock)
    model.image_tower = tower
    with clock.stage("classify, search, score"):
        photos = classify_photos(model)
        queries = search_drawings(model, drawings)
        scores = [*score_classes(model, left_out), *score_drawings(model, drawings), score_photos(photos)]
    report = Report(
        photos=photos,
        labels=LABELS,
        queries=queries,
        num_pictures=drawings.num_rows,
        scores=scores,
        facts=_facts(image, tower, taught, left_out),
        seconds=clock.seconds,
    )
    write_bytes(out / "index.html", to_html(report).encode())
    draw_sheet(report, out / "demo.png")
    Console().print(scores_table(scores))
    log(f"{sum(clock.seconds.values()):.0f} s in all; the page: {out / 'index.html'}")


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


def embed_drawings(tower: ImageTower, work: Path) -> EmbeddingStore:
    """A store of OpenMoji's drawings of things, each with its name."""
    folder = work / "drawings"
    render_concepts(find_concepts(), folder)
    return embed(tower, open_pairs(folder), work / "drawings-store")


def train(work: Path, taught: EmbeddingStore, drawings: EmbeddingStore, clock: StageClock) -> LiT:
    """Train the head on the prototypes."""
    config = TrainConfig(
        store=(str(taught.path),),
        out=work / "run",
        text=_TEXT,
        locking="LL",
        seed=_SEED,
    )
    with clock.stage("train"):
        return fit(config)


def classify_photos(model: LiT) -> list[PhotoResult]:
    """What each photograph is, among all labels."""
    paths = [photo_path(photo) for photo in PHOTOS]
    rows = model.classify_many(paths, LABELS)
    return [
        PhotoResult(photo=photo, path=path, scores=[(score.label, score.score) for score in row])
        for photo, path, row in zip(PHOTOS, paths, rows, strict=True)
    ]


def search_drawings(model: LiT, drawings: EmbeddingStore) -> list[QueryResult]:
    """The drawings nearest to each query."""
    concepts = {concept.key: concept for concept in find_concepts()}
    found = Index(model, drawings).search_many(list(QUERIES), k=_FOUND)
    return [
        QueryResult(words=words, found=[concepts[hit.key] for hit in hits])
        for words, hits in zip(QUERIES, found, strict=True)
    ]


def score_classes(model: LiT, left_out: EmbeddingStore) -> list[ScoreRow]:
    """Whether the direction of a class that was left out finds its name, among all names and among the left-out."""
    labels, names = left_out.labels(), left_out.classnames
    assert labels is not None and names is not None
    directions = np.concatenate(list(project(model, left_out)))
    classifier = zero_shot_classifier(model.encode_text, names, DEFAULT_TEMPLATES)
    own = np.arange(len(labels))
    return [
        _score_row(
            "left-out class → its name, of all names", label_ranks(directions @ classifier.T, labels), len(names)
        ),
        _score_row(
            "left-out class → its name, of the left-out",
            label_ranks(directions @ classifier[labels].T, own),
            len(labels),
        ),
    ]


def score_drawings(model: LiT, drawings: EmbeddingStore) -> list[ScoreRow]:
    """Whether a name finds its drawing, and a drawing its name."""
    metrics = evaluate(model, drawings, ks=_KS).results[0].metrics
    tasks = {"name → its drawing": "text_to_image", "drawing → its name": "image_to_text"}
    return [
        ScoreRow(
            task=task,
            num_questions=drawings.num_rows,
            num_answers=drawings.num_rows,
            hits={k: metrics[f"{direction}/recall@{k}"] for k in _KS},
        )
        for task, direction in tasks.items()
    ]


def score_photos(photos: Sequence[PhotoResult]) -> ScoreRow:
    """Whether a photograph gets the label that a person would type."""
    ranks = [[label for label, _ in result.scores].index(result.photo.label) for result in photos]
    return _score_row("photograph → the label a person would type", np.asarray(ranks), len(LABELS))


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


def _facts(image: str, tower: ImageTower, taught: EmbeddingStore, left_out: EmbeddingStore) -> Mapping[str, str]:
    num_texts = len({text for texts in taught.texts() for text in texts})
    return {
        "image tower": f"{image}, locked, {tower.dim} numbers an image",
        "text tower": _TEXT,
        "trained on": f"{taught.num_rows:,} class directions and {num_texts:,} distinct texts; no image",
        "left out": f"{left_out.num_rows:,} classes, drawn at random",
        "machine": f"{os.cpu_count()} CPU cores ({platform.machine()}), torch {version('torch')}",
    }
