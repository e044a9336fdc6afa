"""The work: one thread that runs the towers, some that decode pictures, and the batches between them."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from littune.apps.search import Hit, Index, Query
from littune.apps.server.batching import Batcher
from littune.apps.server.classifiers import Classifiers
from littune.apps.server.http.metrics import Metrics
from littune.apps.server.limits import Limits
from littune.base.errors import InputError, LittuneError
from littune.model.lit import LiT, Score
from littune.pairs.decode import decode

Vector = Float[np.ndarray, " dim"]

_OPEN_PICTURES = 8
"""Pictures of full size in memory at once that wait for a search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A query, and how it is to be answered."""

    query: Query
    k: int
    where: Mapping[str, object]


class Engine:
    """A model, and an index to search, at the service of many.

    Args:
        model: the model; its image tower is loaded at once.
        index: what is searched, if anything.
        limits: the size of a batch, and the pixels of a picture.
        metrics: told of batches and of the cache.
        workers: threads that decode pictures.

    Raises:
        InputError: the image tower cannot be loaded.
    """

    def __init__(self, model: LiT, index: Index | None, *, limits: Limits, metrics: Metrics, workers: int) -> None:
        self.model = model
        self.index = index
        self._max_pixels = limits.max_pixels
        self._preprocess = model.image_tower.preprocess
        # A tower uses all cores for a batch; two batches at a time would be slower than one after the other.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="towers")
        self._decoders = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._open_pictures = asyncio.Semaphore(_OPEN_PICTURES)
        shared = partial(Batcher, thread=self._thread, max_batch=limits.max_batch)
        self._images: Batcher[Tensor, Vector] = shared(self._encode_images, on_batch=partial(metrics.batch, "image"))
        self._texts: Batcher[str, Vector] = shared(self._encode_texts, on_batch=partial(metrics.batch, "text"))
        self._searches: Batcher[Search, list[Hit] | LittuneError] = shared(
            self._find, on_batch=partial(metrics.batch, "search")
        )
        self._classifiers = Classifiers(self._texts.submit, on_look=metrics.classifier)

    async def classify(self, encoded: bytes, labels: Sequence[str], templates: Sequence[str]) -> list[Score]:
        """The labels with their probabilities, the likeliest first.

        Raises:
            LittuneError: the picture cannot be read, or a template has no ``{}``.
        """
        classifier = await self._classifiers.of(labels, templates)
        logits = self.model.logit_scale * (classifier @ await self.embed_image(encoded))
        probabilities = torch.from_numpy(logits).softmax(dim=0).tolist()
        scores = [Score(label, share) for label, share in zip(labels, probabilities, strict=True)]
        return sorted(scores, key=lambda score: -score.score)

    async def embed_image(self, encoded: bytes) -> Vector:
        """The picture's unit vector.

        Raises:
            DecodeError: it cannot be read.
        """
        with self._images.coming():
            loop = asyncio.get_running_loop()
            pixels = await loop.run_in_executor(self._decoders, self._pixels, encoded)
        (vector,) = await self._images.submit([pixels])
        return vector

    async def embed_texts(self, texts: Sequence[str]) -> list[Vector]:
        """The texts' unit vectors."""
        return await self._texts.submit(texts)

    async def search(
        self,
        text: str,
        encoded: bytes | None,
        *,
        weight: float,
        without: tuple[str, ...],
        k: int,
        where: Mapping[str, object],
    ) -> list[Hit]:
        """The ``k`` pictures nearest to the words and the picture, best first.

        Raises:
            LittuneError: the picture cannot be read, there is no such column, or nothing is left of the query.
        """
        query = partial(Query, text=text, weight=weight, without=without)
        if encoded is None:
            return await self._search(Search(query=query(), k=k, where=where))
        async with self._open_pictures:
            with self._searches.coming():
                loop = asyncio.get_running_loop()
                picture = await loop.run_in_executor(self._decoders, self._open, encoded)
            return await self._search(Search(query=query(image=picture), k=k, where=where))

    def close(self) -> None:
        """End the threads; what runs is waited for, what waits is dropped."""
        self._thread.shutdown(cancel_futures=True)
        self._decoders.shutdown(cancel_futures=True)

    async def _search(self, search: Search) -> list[Hit]:
        (found,) = await self._searches.submit([search])
        if isinstance(found, LittuneError):
            raise found
        return found

    def _open(self, encoded: bytes) -> Image.Image:
        return decode(encoded, max_pixels=self._max_pixels)

    def _pixels(self, encoded: bytes) -> UInt8[Tensor, "3 h w"]:
        return self._preprocess(self._open(encoded))

    @torch.no_grad()
    def _encode_images(self, pixels: list[Tensor]) -> list[Vector]:
        embeddings = self.model.image_tower.encode(torch.stack(pixels))
        return list(self.model.project_images(embeddings.to(self.model.center.device)).cpu().numpy())

    def _encode_texts(self, texts: list[str]) -> list[Vector]:
        return list(self.model.encode_text(texts))

    def _find(self, searches: list[Search]) -> list[list[Hit] | LittuneError]:
        """Searches of the same ``k`` and filters go through the index together."""
        groups: dict[str, list[int]] = {}
        for place, search in enumerate(searches):
            groups.setdefault(repr((search.k, search.where)), []).append(place)
        found: dict[int, list[Hit] | LittuneError] = {}
        for places in groups.values():
            found.update(zip(places, self._find_alike([searches[place] for place in places]), strict=True))
        return [found[place] for place in range(len(searches))]

    def _find_alike(self, searches: list[Search]) -> Sequence[list[Hit] | LittuneError]:
        if self.index is None:
            return [InputError("this server was started without --store; it has nothing to search")] * len(searches)
        try:
            queries = [search.query for search in searches]
            return self.index.search_many(queries, k=searches[0].k, where=searches[0].where)
        except LittuneError as error:
            # Of several, the others have nothing to do with what is wrong with one.
            return [error] if len(searches) == 1 else [self._find_alike([search])[0] for search in searches]
