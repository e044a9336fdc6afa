"""Prompt sensitivity: how much a zero-shot score owes to the wording of its templates.

An ensemble of templates does better than one partly because averaging over any texts around a name steadies its
direction: templates of random words gain as well (Roth et al. 2023, "Waffling around for performance"). What an
ensemble has beyond that control is what its words know.
"""

import random
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from littune.model.zero_shot import EncodeText, prompts, zero_shot_classifier

Score = Callable[[Float[np.ndarray, "classes d"]], float]
"""A classifier → its score, the higher the better."""

_BARE = ("{}",)

_ORDINARY_WORDS = (
    "about above again almost along always answer around away before begin behind below beside better between both "
    "bring carry change close come common could country course different early either end enough even every example "
    "family far few follow friend give group half hand hard help high home hour idea important keep kind know large "
    "last later learn leave less letter life little long look many mean might money month more morning most move much "
    "name near never next night nothing number often old only open other own part people place plan point question "
    "quite rather reason same second seem several short side simple since slow some soon start state still story "
    "street such sure take talk tell thing think three time today together turn under until usual very wait walk "
    "want week well while whole word work world year young"
)


def prompt_sensitivity(
    encode_text: EncodeText,
    classnames: Sequence[str],
    templates: Sequence[str],
    score: Score,
    *,
    canonical: bool = False,
    num_draws: int = 3,
    seed: int = 0,
) -> dict[str, float]:
    """The scores of each template alone, of all together, of as many templates of random words, of the bare names.

    A random template has an ordinary word for each word of the one that it stands for; the name stays where it is, and
    no word is drawn that occurs in a class name. Languages that put no spaces between words are left as they are.

    Args:
        encode_text: texts → embeddings; it is called once, with every distinct text.
        classnames: the names, at least one.
        templates: the ensemble, at least one, each with ``{}`` where the name goes.
        score: what a classifier achieves.
        canonical: whether to lower-case the texts and strip their punctuation.
        num_draws: how many times the random words are drawn.
        seed: of the draws.

    Returns:
        ``one_template_min``, ``_median``, ``_max`` and ``_std``; ``ensemble``; ``random_words`` (the mean of the draws)
        and ``random_words_std``; ``bare_names``.

    Raises:
        InputError: there are no class names or no templates, or a template has no ``{}``.
    """
    words = _words_outside(classnames)
    rng = random.Random(seed)  # noqa: S311 (no secret)
    draws = [[_in_random_words(template, words, rng) for template in templates] for _ in range(num_draws)]
    every = [*templates, *_BARE, *(template for draw in draws for template in draw)]
    encode = _encoded_once(encode_text, prompts(classnames, every, canonical=canonical))

    def score_of(some: Sequence[str]) -> float:
        return score(zero_shot_classifier(encode, classnames, some, canonical=canonical))

    alone = np.array([score_of([template]) for template in templates])
    at_random = np.array([score_of(draw) for draw in draws])
    return {
        "one_template_min": float(alone.min()),
        "one_template_median": float(np.median(alone)),
        "one_template_max": float(alone.max()),
        "one_template_std": float(alone.std()),
        "ensemble": score_of(templates),
        "random_words": float(at_random.mean()),
        "random_words_std": float(at_random.std()),
        "bare_names": score_of(_BARE),
    }


def _words_outside(classnames: Sequence[str]) -> list[str]:
    named = {word for name in classnames for word in name.lower().replace("_", " ").split()}
    return [word for word in _ORDINARY_WORDS.split() if word not in named]


def _in_random_words(template: str, words: Sequence[str], rng: random.Random) -> str:
    return " ".join(word if "{}" in word else rng.choice(words) for word in template.split())


def _encoded_once(encode_text: EncodeText, texts: Sequence[str]) -> EncodeText:
    """A look-up of these texts' embeddings, all of which are computed here."""
    distinct = list(dict.fromkeys(texts))
    places = {text: place for place, text in enumerate(distinct)}
    embeddings = encode_text(distinct)
    return lambda wanted: embeddings[[places[text] for text in wanted]]
