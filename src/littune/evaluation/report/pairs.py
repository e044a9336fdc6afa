"""What a set of pairs' outcome shows: how recall grows with the number of answers that one looks at."""

from math import log

import numpy as np
from jaxtyping import Int64

from littune.evaluation.metrics.ranks import share_within
from littune.evaluation.report.charts import SHARES, Axis, Line, chart
from littune.evaluation.report.markup import Html, details, percent, table, tag
from littune.evaluation.results import DIRECTIONS, RetrievalOutcome

_MAX_K = 100
_TICKS = (1, 2, 5, 10, 20, 50, 100)


def pairs_details(outcome: RetrievalOutcome) -> list[Html]:
    """The sections of one set of pairs."""
    num_answers = {"text_to_image": len(outcome.keys), "image_to_text": len(outcome.captions)}
    curves = {
        name: recall_curve(outcome.ranks[f"{name}/recall"], num_answers[name])
        for name in DIRECTIONS
        if f"{name}/recall" in outcome.ranks and num_answers[name]
    }
    return [_curves(curves, len(outcome.keys))] if curves else []


def recall_curve(ranks: Int64[np.ndarray, " n"], num_answers: int) -> list[float]:
    """recall@1, recall@2, … up to the number of answers, but no further than 100."""
    return [share_within(ranks, k) for k in range(1, min(_MAX_K, num_answers) + 1)]


def _curves(curves: dict[str, list[float]], num_images: int) -> Html:
    longest = max(map(len, curves.values()))
    ticks = [tick for tick in _TICKS if tick <= longest]
    lines = [
        Line(name=DIRECTIONS[name], kind=kind, points=tuple(enumerate(curve, 1)))
        for kind, (name, curve) in zip(("first", "second"), curves.items(), strict=False)
    ]
    chance = tuple((k, k / num_images) for k in range(1, min(longest, num_images) + 1))
    drawn = chart(
        (*lines, Line(name="chance, text → image", kind="guide", points=chance)),
        x=Axis(
            label="k, how many answers are looked at",
            ticks=[(tick, f"{tick}") for tick in ticks],
            place=lambda k: log(k) / log(longest) if longest > 1 else 0.0,
        ),
        y=Axis(label="recall@k, %", ticks=SHARES, place=float),
        title="How far down one has to look",
    )
    rows = [
        [DIRECTIONS[name], *(percent(curve[tick - 1]) if tick <= len(curve) else "–" for tick in ticks)]
        for name, curve in curves.items()
    ]
    numbers = table("recall@k, %", ("", *(f"k = {tick}" for tick in ticks)), rows)
    return tag("section", {}, tag("h3", {}, "Recall"), drawn, details("The numbers", numbers))
