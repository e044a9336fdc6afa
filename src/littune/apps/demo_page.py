"""The demo's page: one HTML file that needs nothing else, its pictures and its style inside it."""

import io
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

from PIL import Image

from littune.apps.demo_pictures import Photo

_PHOTO_SIDE = 480
_FOUND_SIDE = 240
_BARS = 4


@dataclass(frozen=True, kw_only=True)
class PhotoResult:
    """What the model made of a photograph: labels with probabilities, the likeliest first."""

    photo: Photo
    path: Path
    scores: Sequence[tuple[str, float]]

    @property
    def right(self) -> bool:
        """Whether the likeliest label is the one that a person would type."""
        return self.scores[0][0] == self.photo.label


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that was found: a raster file or an SVG."""

    name: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class QueryResult:
    """What the model found for some words, the best first."""

    words: str
    found: Sequence[Picture]


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """How often the right one of ``num_answers`` is among the first k, as k → fraction."""

    task: str
    num_questions: int
    num_answers: int
    hits: Mapping[int, float]

    def chance(self, k: int) -> float:
        """What guessing would get."""
        return min(1.0, k / self.num_answers)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that the page shows.

    Attributes:
        facts: what was used, as name → text.
        seconds: how long each stage took.
    """

    photos: Sequence[PhotoResult]
    labels: Sequence[str]
    photo_queries: Sequence[QueryResult]
    drawing_queries: Sequence[QueryResult]
    num_drawings: int
    scores: Sequence[ScoreRow]
    facts: Mapping[str, str]
    seconds: Mapping[str, float]


def to_html(report: Report) -> str:
    """The page, whole; every text in it is escaped."""
    style = (files("littune.apps") / "demo_page.css").read_text(encoding="utf-8")
    right = sum(result.right for result in report.photos)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>littune: what a locked image tower already knows</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>What a locked image tower already knows</h1>
<p class="lead">An image classifier holds one direction for each of its classes. littune taught a text tower to read
those directions: from class names alone, without a single image. Then it looked at pictures that neither tower had
seen.</p>
</header>
<main>
<section>
<h2>Photographs, in words a person would type</h2>
<p>Each photograph chooses among the same {len(report.labels)} labels; the likeliest are shown. Right at first go:
{right} of {len(report.photos)}.</p>
<div class="photos">
{_join(map(_photo, report.photos))}
</div>
<details><summary>All {len(report.labels)} labels</summary><p>{escape(", ".join(report.labels))}</p></details>
</section>
<section>
<h2>Words, and the photographs they find</h2>
<p>The first {_most(report.photo_queries)} of the {len(report.photos)} photographs, the best first.</p>
<div class="queries few">
{_join(map(_query, report.photo_queries))}
</div>
</section>
<section>
<h2>Words, and the drawings they find</h2>
<p>The first {_most(report.drawing_queries)} of {report.num_drawings} emoji, the best first. The image tower learned
from photographs: flat drawings are hard for it, as the last line of the scores says.</p>
<div class="queries">
{_join(map(_query, report.drawing_queries))}
</div>
</section>
<section>
<h2>Scores</h2>
{_scores(report.scores)}
<p class="note">Percent, chance beside it in grey. No left-out class, photograph or drawing was trained on; labels and
queries were written before they were scored, and what is wrong is shown as it is.</p>
</section>
<section>
<h2>How it was made</h2>
{_facts(report.facts)}
{_seconds(report.seconds)}
</section>
</main>
<footer>
<h2>Whose pictures these are</h2>
<ul>
{_join(map(_credit, report.photos))}
</ul>
<p>The photographs ship with scikit-image; authors and licences are those that its documentation states. The drawings
are from <a href="https://openmoji.org/">OpenMoji</a>, the open-source emoji and icon project, licence
<a href="https://creativecommons.org/licenses/by-sa/4.0/">CC BY-SA 4.0</a>; they are shown unchanged, on white.</p>
</footer>
</body>
</html>
"""


def thumbnail(path: Path, *, side: int = _PHOTO_SIDE) -> bytes:
    """The middle square of a picture as a JPEG, ``side`` pixels wide."""
    with Image.open(path) as picture:
        square = middle_square(picture.convert("RGB")).resize((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    square.save(file, "JPEG", quality=82, optimize=True)
    return file.getvalue()


def middle_square(picture: Image.Image) -> Image.Image:
    """The largest centred square: what most image towers see."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def percent(fraction: float) -> str:
    """A fraction in percent, with a decimal where there is little of it."""
    return f"{100 * fraction:.0f}" if fraction >= 0.0995 or fraction == 0 else f"{100 * fraction:.1f}"


def _photo(result: PhotoResult) -> str:
    photo = result.photo
    bars = _join(_bar(label, score, right=label == photo.label) for label, score in result.scores[:_BARS])
    return f"""<figure class="photo">
<img src="{_data_uri(thumbnail(result.path), "image/jpeg")}" alt="{escape(photo.title)}" width="{_PHOTO_SIDE}" \
height="{_PHOTO_SIDE}">
<figcaption>
<h3>{escape(photo.title)}</h3>
<ol class="bars">
{bars}
</ol>
{_verdict(result)}
</figcaption>
</figure>"""


def _bar(label: str, score: float, *, right: bool) -> str:
    kind = ' class="right"' if right else ""
    return (
        f'<li{kind} style="--share:{100 * score:.1f}%"><span class="label">{escape(label)}</span>'
        f'<span class="score">{percent(score)} %</span></li>'
    )


def _verdict(result: PhotoResult) -> str:
    rank = [label for label, _ in result.scores].index(result.photo.label) + 1
    if rank == 1:
        return '<p class="verdict">✓ as a person would say</p>'
    return f'<p class="verdict wrong">✗ a person would say “{escape(result.photo.label)}”: place {rank}</p>'


def _query(result: QueryResult) -> str:
    pictures = _join(
        f'<li><img src="{_small(picture.path)}" alt="" loading="lazy"><span>{escape(picture.name)}</span></li>'
        for picture in result.found
    )
    return f'<article class="query">\n<h3>“{escape(result.words)}”</h3>\n<ol>\n{pictures}\n</ol>\n</article>'


def _small(path: Path) -> str:
    if path.suffix == ".svg":
        return _data_uri(path.read_bytes(), "image/svg+xml")
    return _data_uri(thumbnail(path, side=_FOUND_SIDE), "image/jpeg")


def _scores(rows: Sequence[ScoreRow]) -> str:
    ks = sorted({k for row in rows for k in row.hits})
    head = "".join(f"<th>first {k}</th>" if k > 1 else "<th>first</th>" for k in ks)
    body = _join(
        f'<tr><th scope="row">{escape(row.task)}</th><td>{row.num_questions:,}</td><td>{row.num_answers:,}</td>'
        + "".join(_score_cell(row, k) for k in ks)
        + "</tr>"
        for row in rows
    )
    return f"""<div class="wide"><table>
<thead><tr><th>the right one is among the</th><th>asked</th><th>answers</th>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>"""


def _score_cell(row: ScoreRow, k: int) -> str:
    if k not in row.hits:
        return "<td></td>"
    return f"<td><b>{percent(row.hits[k])}</b> <small>{percent(row.chance(k))}</small></td>"


def _facts(facts: Mapping[str, str]) -> str:
    rows = _join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    return f"<dl>\n{rows}\n</dl>"


def _seconds(seconds: Mapping[str, float]) -> str:
    rows = _join(
        f'<tr><th scope="row">{escape(name)}</th><td>{value:.0f} s</td></tr>' for name, value in seconds.items()
    )
    total = f'<tr class="total"><th scope="row">in all</th><td>{sum(seconds.values()):.0f} s</td></tr>'
    return f'<div class="wide"><table class="seconds">\n{rows}\n{total}\n</table></div>'


def _credit(result: PhotoResult) -> str:
    return f"<li>{escape(result.photo.title)}: {escape(result.photo.credit)}</li>"


def _most(queries: Sequence[QueryResult]) -> int:
    return max((len(query.found) for query in queries), default=0)


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"


def _join(parts: Iterable[str]) -> str:
    return "\n".join(parts)
