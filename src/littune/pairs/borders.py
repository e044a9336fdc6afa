"""Pictures without their borders: ObjectNet's have a coloured frame that is no part of the photo."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO

from PIL import Image, ImageOps

from littune.pairs.base import BadSample, Part, Sample, Source
from littune.pairs.decode import DecodeError, decode
from littune.pairs.rows import PartList, RowError, sample_or_bad

# The picture is read again at once: small steps of compression take longer than they save.
_COMPRESS_LEVEL = 1


@dataclass(frozen=True, kw_only=True)
class CroppedPart:
    """A part whose pictures lack ``border`` pixels at each side; they come as PNG, otherwise unchanged."""

    part: Part
    border: int

    @property
    def name(self) -> str:
        return self.part.name

    def fingerprint(self) -> str:
        return f"{self.part.fingerprint()} border {self.border}"

    def samples(self) -> Iterator[Sample | BadSample]:
        for sample in self.part.samples():
            if isinstance(sample, BadSample):
                yield sample
            else:
                yield self._cropped(sample)

    def _cropped(self, sample: Sample) -> Sample | BadSample:
        def make() -> Sample:
            return replace(sample, image=_png(self._crop(sample)), place=None)

        return sample_or_bad(sample.key, sample.source, make)

    def _crop(self, sample: Sample) -> Image.Image:
        try:
            picture = decode(sample.image)
        except DecodeError as error:
            raise RowError(str(error)) from error
        if min(picture.size) <= 2 * self.border:
            raise RowError(f"the image has {picture.width} × {picture.height} pixels, all of them border")
        return ImageOps.crop(picture, self.border)


def crop_borders(source: Source, border: int) -> PartList:
    """``source`` with ``border`` pixels cropped off each side of every picture.

    The parts keep their names; their fingerprints tell the border.
    """
    return PartList(
        spec=source.spec,
        kind=f"{source.kind}, each side cropped by {border} px",
        all_parts=tuple(CroppedPart(part=part, border=border) for part in source.parts()),
        texts=source.texts,
        image_field=source.image_field,
        classnames=source.classnames,
        templates=source.templates,
        count=lambda: source.num_samples,
    )


def _png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG", compress_level=_COMPRESS_LEVEL)
    return file.getvalue()
