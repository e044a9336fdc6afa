"""What is known must match; what is unknown matches nothing until it is admitted."""

import pytest

from littune.base.errors import InputError, MismatchError
from littune.model.reference import ImageReference
from littune.towers.image.tower import Identity

OWN = Identity(weights="w" * 64, pooling="own", dim=3, preprocess="p")
PROTOTYPES = Identity(weights="w" * 64, pooling="own", dim=3)
OTHER = Identity(weights="v" * 64, pooling="own", dim=3, preprocess="p")
KNOWN = ImageReference(spec="timm:x", pooling="own", identity=OWN)


def test_what_is_known_must_match_whatever_is_admitted() -> None:
    for allow_foreign in (False, True):
        KNOWN.check(OWN, "it", allow_foreign=allow_foreign)
        KNOWN.check(PROTOTYPES, "it", allow_foreign=allow_foreign)
        with pytest.raises(MismatchError, match="it is not of the image tower timm:x .*: other weights"):
            KNOWN.check(OTHER, "it", allow_foreign=allow_foreign)


@pytest.mark.parametrize(
    ("reference", "identity", "why"),
    [
        (KNOWN, None, "it does not say which image tower"),
        (ImageReference.unknown(), None, "it does not say which image tower"),
        (ImageReference.unknown(), OWN, "the run does not know its image tower, so it may be of another"),
    ],
)
def test_what_is_unknown_has_to_be_admitted(reference: ImageReference, identity: Identity | None, why: str) -> None:
    with pytest.raises(MismatchError, match=f"{why}.*--allow-foreign admits it"):
        reference.check(identity, "it")
    reference.check(identity, "it", allow_foreign=True)


def test_how_much_each_knows() -> None:
    prototypes = ImageReference(spec="timm:x", pooling="own", identity=PROTOTYPES)
    assert [its.knowledge for its in (ImageReference.unknown(), prototypes, KNOWN)] == [0, 1, 2]


def test_an_unknown_tower_cannot_be_loaded() -> None:
    with pytest.raises(InputError, match=r"reads no pictures.*--image SPEC.*model\.image_tower"):
        ImageReference.unknown().load(device="cpu", precision="float32")
