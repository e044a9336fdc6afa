"""What is asked and answered, as it stands in the published schema."""

import base64
import binascii
from collections import Counter
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, WithJsonSchema, model_validator

from littune.apps.server.limits import (
    MAX_CHOICES,
    MAX_FILTERS,
    MAX_HITS,
    MAX_LABELS,
    MAX_PROMPTS,
    MAX_TEMPLATES,
    MAX_TEXT,
    MAX_TEXTS,
    MAX_WITHOUT,
)
from littune.model.prompts import DEFAULT_TEMPLATES


def _picture(given: object) -> object:
    """A picture's bytes: as they came in a form, or from base64."""
    if not isinstance(given, str):
        return given
    try:
        return base64.b64decode("".join(given.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"it must be a picture's file in base64 ({error})") from error


# ``\S`` somewhere: a blank text says nothing.
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT, pattern=r"\S")]
Template = Annotated[str, Field(max_length=MAX_TEXT, pattern=r"\{c?\}")]
Picture = Annotated[
    bytes,
    BeforeValidator(_picture),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "description": "A picture's file, in base64."}),
]
Value = Annotated[str, Field(max_length=MAX_TEXT)] | Annotated[int, Field(ge=-(2**63), lt=2**63)] | FiniteFloat | bool
Filter = (
    Value
    | Annotated[list[Value], Field(min_length=1, max_length=MAX_CHOICES)]
    | Annotated[dict[Literal["min", "max"], FiniteFloat], Field(min_length=1)]
)


class Question(BaseModel):
    """A body: what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lists: ClassVar[frozenset[str]] = frozenset()
    """The fields that a form repeats."""


class PictureQuestion(Question):
    """A picture to embed."""

    image: Picture


class ClassifyQuestion(Question):
    """A picture, and the labels to choose from."""

    lists = frozenset(("labels", "templates"))

    image: Picture
    labels: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_LABELS)]
    templates: Annotated[
        tuple[Template, ...],
        Field(min_length=1, max_length=MAX_TEMPLATES, description="Prompts, each with {} where the label goes."),
    ] = DEFAULT_TEMPLATES

    @model_validator(mode="after")
    def _check_together(self) -> "ClassifyQuestion":
        repeated = next((label for label, count in Counter(self.labels).items() if count > 1), None)
        if repeated is not None:
            raise ValueError(f"the label {repeated[:100]!r} is given more than once; give it once")
        num_prompts = len(self.labels) * len(self.templates)
        if num_prompts > MAX_PROMPTS:
            counts = f"{len(self.labels)} labels in {len(self.templates)} templates are {num_prompts} texts"
            raise ValueError(f"{counts}, over the limit of {MAX_PROMPTS}; give fewer templates")
        return self


class TextsQuestion(Question):
    """Texts to embed."""

    texts: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_TEXTS)]


class SearchQuestion(Question):
    """Words, a picture or both to look for."""

    lists = frozenset(("without",))

    text: Annotated[str, Field(max_length=MAX_TEXT)] = ""
    image: Picture | None = None
    weight: Annotated[float, Field(ge=0, le=1, description="Of the picture, where both are given.")] = 0.5
    without: Annotated[
        tuple[Text, ...], Field(max_length=MAX_WITHOUT, description="What the pictures found should not be like.")
    ] = ()
    k: Annotated[int, Field(ge=1, le=MAX_HITS, description="How many pictures to find.")] = 10
    where: Annotated[
        dict[str, Filter],
        Field(
            max_length=MAX_FILTERS,
            description="Columns of the store → a value, a list of values, or the least and most of a number.",
        ),
    ] = {}

    @model_validator(mode="after")
    def _check_asked(self) -> "SearchQuestion":
        if not self.text.strip() and self.image is None:
            raise ValueError("give text, image or both to search for")
        return self


class Answer(BaseModel):
    """An answer."""

    model_config = ConfigDict(frozen=True)


class Scored(Answer):
    """A label and its probability among those that were asked for."""

    label: str
    score: float


class Classification(Answer):
    """All labels, the likeliest first."""

    scores: list[Scored]


class Found(Answer):
    """A picture of the store, and its score."""

    score: float
    key: str
    source: str
    caption: str


class Hits(Answer):
    """The pictures found, the best first."""

    hits: list[Found]


class Embedding(Answer):
    """A unit vector in the space that pictures and texts share."""

    embedding: list[float]


class Embeddings(Answer):
    """A unit vector for each text."""

    embeddings: list[list[float]]


class Health(Answer):
    """The server runs."""

    status: Literal["ok"] = "ok"
    dim: int
    num_images: Annotated[int | None, Field(description="Pictures to search; null without a store.")]


class Problem(Answer):
    """Why a request is not served."""

    error: str
