"""Retrieval both ways on a set of pairs (section 4, Appendix I.3), with its uncertainty and its hubs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int64

from littune.evaluation.metrics.hubness import QueryBank, k_occurrence, skewness
from littune.evaluation.metrics.ranks import share_within
from littune.evaluation.metrics.retrieval import Adjust, nearest, retrieval_ranks, text_groups
from littune.evaluation.per_image import intervals_of
from littune.evaluation.results import NORMALISED, Result, RetrievalOutcome
from littune.evaluation.sets.stores import project
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore

_SHOWN = 5
_HUB_K = 10


@dataclass(frozen=True, kw_only=True)
class Banks:
    """Texts and images of the training data, for query-bank normalisation: unit rows."""

    texts: Float32[np.ndarray, "t d"]
    images: Float32[np.ndarray, "i d"]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Images with their texts, embedded; every image has at least one text."""

    name: str
    store: EmbeddingStore
    rows: Int64[np.ndarray, " i"]
    captions: Sequence[str]
    owners: Int64[np.ndarray, " t"]
    images: Float32[np.ndarray, "i d"]
    texts: Float32[np.ndarray, "t d"]

    @classmethod
    def of(cls, model: LiT, store: EmbeddingStore, texts: Sequence[Sequence[str]], name: str) -> "Pairs":
        """Embed the texts of each row of the store (one at least has some), and project the images that have any."""
        rows = np.flatnonzero([bool(its) for its in texts]).astype(np.int64)
        captions = [text for its in texts for text in its]
        return cls(
            name=name,
            store=store,
            rows=rows,
            captions=captions,
            owners=np.repeat(np.arange(len(rows)), [len(its) for its in texts if its]),
            images=np.concatenate(list(project(model, store)))[rows],
            texts=model.encode_text(captions),
        )

    def without(self, dropped: Sequence[int]) -> "Pairs":
        """The pairs without the images of these rows of the store."""
        kept = ~np.isin(self.rows, np.asarray(dropped, np.int64))
        kept_texts = kept[self.owners]
        return replace(
            self,
            rows=self.rows[kept],
            captions=[text for text, its in zip(self.captions, kept_texts, strict=True) if its],
            owners=(np.cumsum(kept) - 1)[self.owners[kept_texts]],
            images=self.images[kept],
            texts=self.texts[kept_texts],
        )

    def ranks(self, adjust: Mapping[str, Adjust] | None = None) -> dict[str, Int64[np.ndarray, " _"]]:
        """As ``retrieval_ranks``."""
        return retrieval_ranks(self.images, self.texts, self.owners, text_groups(self.captions), adjust=adjust)

    def metrics(self, ranks: Mapping[str, Int64[np.ndarray, " _"]], ks: Sequence[int]) -> dict[str, float]:
        """``text_to_image/recall@k``, … of these ranks; a k beyond the number of answers is left out."""
        answers = {"text_to_image": len(self.images), "image_to_text": len(self.texts)}
        return {
            f"{name}@{k}": share_within(values, k)
            for name, values in ranks.items()
            for k in ks
            if k <= answers[name.partition("/")[0]]
        }


def score_retrieval(pairs: Pairs, ks: Sequence[int], *, details: bool, banks: Banks | None) -> Result:
    """Find each text's image and each image's texts.

    Args:
        pairs: the images and texts.
        ks: the k of recall@k.
        details: whether to go beyond the scores: intervals, hubness, what came out for each query.
        banks: queries of the training data; with them scores are normalised, too.
    """
    ranks = pairs.ranks()
    result = Result(
        data=pairs.name,
        task="retrieval",
        num_images=len(pairs.images),
        num_texts=len(pairs.texts),
        metrics=pairs.metrics(ranks, ks),
        store=pairs.store,
    )
    if not details:
        return result
    to_image, to_text = nearest(pairs.texts, pairs.images, _HUB_K), nearest(pairs.images, pairs.texts, _HUB_K)
    keys = pairs.store.keys()
    outcome = RetrievalOutcome(
        keys=[keys[row] for row in pairs.rows.tolist()],
        rows=pairs.rows,
        captions=pairs.captions,
        owners=pairs.owners,
        ranks=ranks,
        top_images=to_image[:, :_SHOWN],
        top_texts=to_text[:, :_SHOWN],
    )
    findings = {"hubness": _skewness(pairs, to_image, to_text)}
    if banks is not None:
        findings[NORMALISED] = normalised(pairs, banks, ks)
    return replace(result, outcome=outcome, findings=findings, intervals=intervals_of(outcome, result.metrics))


def normalised(pairs: Pairs, banks: Banks, ks: Sequence[int]) -> dict[str, float]:
    """Recall and skewness with scores that are normalised by what the training data's queries find."""
    to_image, to_text = QueryBank.of(banks.texts, pairs.images), QueryBank.of(banks.images, pairs.texts)
    ranks = pairs.ranks({"text_to_image": to_image.adjust, "image_to_text": to_text.adjust})
    near_texts = nearest(pairs.texts, pairs.images, _HUB_K, adjust=to_image.adjust)
    near_images = nearest(pairs.images, pairs.texts, _HUB_K, adjust=to_text.adjust)
    return _skewness(pairs, near_texts, near_images) | pairs.metrics(ranks, ks)


def _skewness(pairs: Pairs, to_image: Int64[np.ndarray, "t k"], to_text: Int64[np.ndarray, "i l"]) -> dict[str, float]:
    return {
        f"text_to_image/skewness@{_HUB_K}": skewness(k_occurrence(to_image, len(pairs.images))),
        f"image_to_text/skewness@{_HUB_K}": skewness(k_occurrence(to_text, len(pairs.texts))),
    }
