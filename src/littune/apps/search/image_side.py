"""ImageSide: what makes projected rows those of a run. A text tower that is trained anew leaves them as they are.

Rows are projected by the centre and by the image head, where there is one (Zhai et al. 2021, App. C: by default there
is none). So an index of them serves every run with the same of both, whatever its text tower.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

from littune.base.errors import InputError, MismatchError
from littune.model.lit import LiT


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSide:
    """Digests of what turns a store's rows into those of an index."""

    center: str
    head: str
    """Empty where there is no image head."""

    @classmethod
    def of(cls, model: LiT) -> "ImageSide":
        """That of a model."""
        head = model.image_head
        return cls(center=_digest([model.center]), head="" if head is None else _digest(head.state_dict().values()))

    @classmethod
    def from_dict(cls, values: object, what: str) -> "ImageSide":
        """What ``to_dict`` gave; ``what`` names where it was read.

        Raises:
            InputError: it is something else.
        """
        if not isinstance(values, Mapping) or values.keys() != {"center", "head"}:
            raise InputError(f"{what} does not say which run it is of; make it anew with: littune index")
        return cls(center=str(values["center"]), head=str(values["head"]))

    def to_dict(self) -> dict[str, str]:
        """JSON values."""
        return asdict(self)

    def check(self, model: LiT, what: str) -> None:
        """Check that the rows of ``what`` are what the model would make of them.

        Raises:
            MismatchError: they are not.
        """
        other = ImageSide.of(model)
        differing = [
            name
            for name, mine, its in (("centre", self.center, other.center), ("image head", self.head, other.head))
            if mine != its
        ]
        if differing:
            raise MismatchError(
                f"{what} is the index of another run, with another {' and another '.join(differing)}; "
                "make one for this run with: littune index"
            )


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)}".encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
