"""Outcomes done by hand, and what every page must be: closed, escaped, whole in itself."""

from html.parser import HTMLParser
from typing import Protocol

import numpy as np
import pytest

from littune.evaluation.results import RetrievalOutcome, ZeroShotOutcome

NASTY = "<script>alert('x')</script> & \"quotes\""


class Outline(HTMLParser):
    """A page's tags with their attributes, its text, and a check that tags are closed in order."""

    VOID = ("meta", "img")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._words: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        """What one reads, without the style."""
        return " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self._words.append(data)


class CheckPage(Protocol):
    def __call__(self, page: str) -> Outline: ...


@pytest.fixture
def check_page() -> CheckPage:
    """Checks that a page loads nothing and runs nothing, and that what is drawn is also said; returns its outline."""

    def check(page: str) -> Outline:
        outline = Outline(page)
        ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        for tag, attributes in outline.tags:
            assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
            assert not any(name.startswith("on") for name in attributes)
            if tag == "img":
                assert (attributes["src"] or "").startswith("data:image/jpeg;base64,")
                assert "alt" in attributes
            if tag == "svg":
                assert attributes["aria-label"]
            if "href" in attributes:
                assert (attributes["href"] or "")[:1] == "#" and (attributes["href"] or "")[1:] in ids
        assert "url(" not in page and "@import" not in page and "http:" not in page and "https:" not in page
        return outline

    return check


@pytest.fixture
def colors() -> ZeroShotOutcome:
    """Six images of three of four classes: red is right twice of three, green once of two, blue never."""
    return ZeroShotOutcome(
        keys=["r0", "r1", "r2", "g0", "g1", "b0"],
        rows=np.arange(6),
        classnames=["red", "green", "blue", "white"],
        labels=np.array([0, 0, 0, 1, 1, 2]),
        ranks=np.array([0, 0, 1, 0, 2, 3]),
        top=np.array([[0, 1], [0, 2], [1, 0], [1, 0], [0, 2], [1, 0]]),
        probabilities=np.array([[0.9, 0.1], [0.8, 0.1], [0.7, 0.2], [0.6, 0.3], [0.5, 0.3], [0.95, 0.01]], np.float32),
        calibrated=np.array([0.6, 0.6, 0.5, 0.4, 0.4, np.nan], np.float32),
    )


@pytest.fixture
def squares() -> RetrievalOutcome:
    """Three images, the first with two texts."""
    return RetrievalOutcome(
        keys=["a", "b", "c"],
        rows=np.array([0, 1, 3]),
        captions=["a red square", "something red", "a green square", "a blue square"],
        owners=np.array([0, 0, 1, 2]),
        ranks={
            "text_to_image/recall": np.array([0, 0, 1, 2]),
            "image_to_text/recall": np.array([0, 2, 1]),
            "text_to_image/recall_dedup": np.array([0, 0, 1, 2]),
            "image_to_text/recall_dedup": np.array([0, 2, 1]),
        },
        top_images=np.array([[0, 1, 2], [0, 2, 1], [0, 1, 2], [0, 1, 2]]),
        top_texts=np.array([[0, 1, 2], [0, 1, 2], [0, 3, 1]]),
    )
