"""Classifiers of label sets, kept: of a label set that is asked for again, only the image tower is run."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from jaxtyping import Float

from littune.model.prompts import check_templates
from littune.model.zero_shot import prompts, zero_shot_classifier

Key = tuple[tuple[str, ...], tuple[str, ...]]

MAX_BYTES = 128 << 20


class Classifiers:
    """The classifiers that were asked for last, as many as ``max_bytes`` hold.

    Requests that need one while it is being made wait for it together. It is given up when all of them have gone.

    Args:
        encode: texts → a float32 row for each.
        max_bytes: the size of all that are kept; the one that was not asked for longest goes first.
        on_look: told of each request whether the classifier was there or being made already.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str]], Awaitable[Sequence[np.ndarray]]],
        *,
        max_bytes: int = MAX_BYTES,
        on_look: Callable[[bool], None],
    ) -> None:
        self._encode = encode
        self._max_bytes = max_bytes
        self._on_look = on_look
        self._kept: OrderedDict[Key, Float[np.ndarray, "classes d"]] = OrderedDict()
        self._making: dict[Key, _Making] = {}

    async def of(self, labels: Sequence[str], templates: Sequence[str]) -> Float[np.ndarray, "classes d"]:
        """One unit row for each label, float32.

        Raises:
            InputError: a template has no ``{}``.
        """
        key = (tuple(labels), check_templates(templates, "the templates"))
        kept = self._kept.get(key)
        self._on_look(kept is not None or key in self._making)
        if kept is not None:
            self._kept.move_to_end(key)
            return kept
        making = self._making.setdefault(key, _Making())
        making.num_waiting += 1
        try:
            if making.task is None:
                making.task = asyncio.create_task(self._make(*key))
            return await asyncio.shield(making.task)
        finally:
            making.num_waiting -= 1
            if not making.num_waiting:
                self._end(key, making)

    async def _make(self, labels: Sequence[str], templates: Sequence[str]) -> Float[np.ndarray, "classes d"]:
        texts = list(dict.fromkeys(prompts(labels, templates)))
        rows = dict(zip(texts, await self._encode(texts), strict=True))
        classifier = await asyncio.to_thread(
            zero_shot_classifier, lambda asked: np.stack([rows[text] for text in asked]), labels, templates
        )
        self._keep((tuple(labels), tuple(templates)), classifier)
        return classifier

    def _end(self, key: Key, making: "_Making") -> None:
        """Nobody waits any more: it is made, it failed, or all have gone."""
        del self._making[key]
        if making.task is not None:
            making.task.cancel()

    def _keep(self, key: Key, classifier: Float[np.ndarray, "classes d"]) -> None:
        self._kept[key] = classifier
        while sum(kept.nbytes for kept in self._kept.values()) > self._max_bytes:
            self._kept.popitem(last=False)


class _Making:
    """A classifier that is being made, and how many wait for it."""

    def __init__(self) -> None:
        self.task: asyncio.Task[np.ndarray] | None = None
        self.num_waiting = 0
