"""The best and the worst examples as pictures, with what the model made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL.Image import Image

from littune.evaluation.report.examples import data_uri, found_first, furthest, pictures_of, surest
from littune.evaluation.report.markup import Html, join, percent, tag
from littune.evaluation.results import Result, RetrievalOutcome, ZeroShotOutcome

_GUESSES = 3
_FOUND = 3
_MAX_TEXT = 160


def examples_section(result: Result) -> Html:
    """The examples of a set; nothing where nothing is known of its images."""
    outcome = result.outcome
    if outcome is None or not len(outcome.keys):
        return Html("")
    groups = _labelled(outcome) if isinstance(outcome, ZeroShotOutcome) else _paired(outcome)
    rows = sorted({int(outcome.rows[image]) for group in groups for card in group.cards for image in card.images})
    pictures = {} if result.store is None else pictures_of(result.store, rows)
    note = Html("") if pictures else tag("p", {"class": "note"}, _NO_PICTURES)
    frames = _Frames(outcome=outcome, pictures=pictures)
    return tag("section", {}, tag("h3", {}, "Examples"), note, *(group.html(frames) for group in groups if group.cards))


_NO_PICTURES = (
    "Without pictures: what the images were embedded from is gone, or has changed since, or the store does not say."
)


@dataclass(frozen=True, kw_only=True)
class _Frames:
    """Draws an image of the outcome, where there is a picture of it."""

    outcome: ZeroShotOutcome | RetrievalOutcome
    pictures: Mapping[int, Image]

    def html(self, image: int, alt: str) -> Html:
        picture = self.pictures.get(int(self.outcome.rows[image]))
        if picture is None:
            return tag("span", {"class": "missing"}, self.outcome.keys[image])
        size = {"width": picture.width, "height": picture.height}
        return tag("img", {"src": data_uri(picture), "alt": alt, "title": self.outcome.keys[image], **size})


@dataclass(frozen=True, kw_only=True)
class _Card:
    """An image, what is written under it, and further images below that.

    Attributes:
        image: its position in the outcome.
        alt: what it shows, as far as its set says.
        words: what is written.
        others: further images, each with what it shows.
        others_are: what these are.
    """

    image: int
    alt: str
    words: Html
    others: Mapping[int, str] = field(default_factory=dict)
    others_are: str = ""

    @property
    def images(self) -> list[int]:
        """All of them."""
        return [self.image, *self.others]

    def html(self, frames: _Frames) -> Html:
        strip = (tag("li", {}, frames.html(image, alt)) for image, alt in self.others.items())
        below = [tag("p", {"class": "note"}, self.others_are), tag("ol", {"class": "strip"}, *strip)]
        caption = tag("figcaption", {}, self.words, *(below if self.others else ()))
        return tag("figure", {"class": "example"}, frames.html(self.image, self.alt), caption)


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Cards under a heading."""

    title: str
    note: str
    cards: Sequence[_Card]
    kind: str

    def html(self, frames: _Frames) -> Html:
        region = {"class": f"examples {self.kind}", "role": "region", "aria-label": self.title, "tabindex": "0"}
        cards = tag("div", region, *(card.html(frames) for card in self.cards))
        return join([tag("h4", {}, self.title), tag("p", {"class": "note"}, self.note), cards])


_SEVERAL = " Some images have several right classes: the first is named, and green is what is known to be right."


def _labelled(outcome: ZeroShotOutcome) -> list[_Group]:
    several = _SEVERAL if np.any((outcome.ranks < 1) & (outcome.top[:, 0] != outcome.labels)) else ""

    def cards(*, right: bool) -> list[_Card]:
        return [_guessed(outcome, int(image)) for image in surest(outcome, right=right)]

    return [
        _Group(
            title="Surest and wrong",
            note=f"Of each class in turn the image for which a wrong class had the highest probability.{several}",
            cards=cards(right=False),
            kind="small",
        ),
        _Group(
            title="Surest and right",
            note=f"The same among the images that were classified rightly.{several}",
            cards=cards(right=True),
            kind="small",
        ),
    ]


def _guessed(outcome: ZeroShotOutcome, image: int) -> _Card:
    """An image with its class, and the likeliest classes."""
    label, rank = int(outcome.labels[image]), int(outcome.ranks[image])
    guesses = outcome.top[image, :_GUESSES].tolist()
    # Of several right classes the outcome names the first; whether the likeliest class is any of them, the rank says.
    right = [rank < 1, *(guess == label for guess in guesses[1:])]
    shares = outcome.probabilities[image, :_GUESSES].tolist()
    bars = (
        _guess(outcome.classnames[guess], share, right=sure)
        for guess, share, sure in zip(guesses, shares, right, strict=True)
    )
    place = Html("") if rank < 1 else tag("small", {"class": "wrong"}, f"✗ place {rank + 1:,}")
    name = outcome.classnames[label]
    return _Card(image=image, alt=name, words=join([tag("b", {}, name), place, tag("ol", {"class": "guesses"}, *bars)]))


def _guess(name: str, share: float, *, right: bool) -> Html:
    attributes = {"style": f"--share:{100 * share:.1f}%", **({"class": "right"} if right else {})}
    return tag("li", attributes, tag("span", {}, name), tag("span", {}, percent(share)))


def _paired(outcome: RetrievalOutcome) -> list[_Group]:
    to_image, to_text = outcome.ranks["text_to_image/recall"], outcome.ranks["image_to_text/recall"]
    texts = _texts_of(outcome)
    lost = [_sought(outcome, texts, int(text)) for text in furthest(to_image, outcome.owners)]
    misread = [_misread(outcome, texts, int(image)) for image in furthest(to_text, np.arange(len(to_text)))]
    found = [_sought(outcome, texts, int(text)) for text in found_first(outcome)]
    return [
        _Group(
            title="Texts whose image is furthest down",
            note=f"The image that the text was written for, and its place among {len(outcome.keys):,}.",
            cards=lost,
            kind="large",
        ),
        _Group(
            title="Images whose texts are furthest down",
            note=f"The place of the best of its own among {len(outcome.captions):,} texts, and what stands first.",
            cards=misread,
            kind="large",
        ),
        _Group(
            title="Texts whose image stands first",
            note="Taken evenly from all of them.",
            cards=found,
            kind="small",
        ),
    ]


def _texts_of(outcome: RetrievalOutcome) -> list[list[int]]:
    """The texts of each image."""
    texts: list[list[int]] = [[] for _ in outcome.keys]
    for text, owner in enumerate(outcome.owners.tolist()):
        texts[owner].append(text)
    return texts


def _sought(outcome: RetrievalOutcome, texts: Sequence[Sequence[int]], text: int) -> _Card:
    """A text with its image, and, where others stand ahead, the first of those."""
    owner, rank = int(outcome.owners[text]), int(outcome.ranks["text_to_image/recall"][text])
    words, others = [tag("q", {}, _short(outcome.captions[text]))], {}
    if rank:
        words.append(tag("small", {"class": "wrong"}, f"✗ place {rank + 1:,}"))
        ahead = [image for image in outcome.top_images[text].tolist() if image != owner][:_FOUND]
        others = {image: _short(outcome.captions[texts[image][0]]) for image in ahead}
    alt = _short(outcome.captions[texts[owner][0]])
    return _Card(image=owner, alt=alt, words=join(words), others=others, others_are="found first:")


def _misread(outcome: RetrievalOutcome, texts: Sequence[Sequence[int]], image: int) -> _Card:
    """An image with its first text, and the texts that stand first."""
    own = _short(outcome.captions[texts[image][0]])
    rank = int(outcome.ranks["image_to_text/recall"][image])
    first = (tag("li", {}, tag("q", {}, _short(outcome.captions[text]))) for text in outcome.top_texts[image, :_FOUND])
    words = [
        tag("q", {}, own),
        tag("small", {"class": "wrong"}, f"✗ place {rank + 1:,}"),
        tag("p", {"class": "note"}, "found first:"),
        tag("ol", {"class": "texts"}, *first),
    ]
    return _Card(image=image, alt=own, words=join(words))


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1].rstrip()}…"
