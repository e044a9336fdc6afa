import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from littune.base.errors import LittuneError
from littune.pairs import Slice
from littune.pairs import decode as module_function
from littune.pairs.decode import MAX_IMAGE_BYTES, DecodeError, check_header, decode, read_encoded


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pixels(image: bytes | Path) -> np.ndarray:
    picture = decode(image)
    assert picture.mode == "RGB"
    assert not picture.has_transparency_data
    return np.asarray(picture)


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8))


def test_the_package_exports_it() -> None:
    assert module_function is decode
    assert issubclass(DecodeError, LittuneError)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_lossless_formats_come_back_as_they_were(noise: Image.Image, form: str) -> None:
    if form == "JPEG2000" and not features.check("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    options = {"WEBP": {"lossless": True}, "JPEG2000": {"irreversible": False}}.get(form, {})
    np.testing.assert_array_equal(pixels(encode(noise, form, **options)), np.asarray(noise))


def test_jpeg_is_decoded_exactly_as_pillow_does(noise: Image.Image) -> None:
    encoded = encode(noise.resize((301, 203)), "JPEG")
    np.testing.assert_array_equal(pixels(encoded), np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")))


def test_a_path_is_read(noise: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    path.write_bytes(encode(noise, "PNG"))
    np.testing.assert_array_equal(pixels(path), np.asarray(noise))


def test_alpha_is_composited_on_white() -> None:
    picture = Image.new("RGBA", (4, 1))
    picture.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 255, 128), (0, 0, 0, 64)])
    expected = [[255, 0, 0], [255, 255, 255], [127, 127, 255], [191, 191, 191]]
    np.testing.assert_allclose(pixels(encode(picture, "PNG"))[0], expected, atol=1)
    np.testing.assert_allclose(pixels(encode(picture, "WEBP", lossless=True, exact=True))[0], expected, atol=1)


def test_grey_with_alpha() -> None:
    picture = Image.new("LA", (2, 1))
    picture.putdata([(100, 255), (100, 0)])
    np.testing.assert_array_equal(pixels(encode(picture, "PNG"))[0], [[100] * 3, [255] * 3])


def test_palette_with_and_without_transparency() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putdata([0, 1])
    np.testing.assert_array_equal(pixels(encode(picture, "PNG"))[0], [[10, 20, 30], [200, 100, 50]])
    as_gif = encode(picture, "GIF", transparency=0)
    np.testing.assert_array_equal(pixels(as_gif)[0], [[255, 255, 255], [200, 100, 50]])
    as_png = encode(picture, "PNG", transparency=bytes([0, 255]))
    np.testing.assert_array_equal(pixels(as_png)[0], [[255, 255, 255], [200, 100, 50]])


def test_a_transparent_colour_of_an_rgb_png() -> None:
    picture = Image.new("RGB", (2, 1))
    picture.putdata([(1, 2, 3), (4, 5, 6)])
    np.testing.assert_array_equal(
        pixels(encode(picture, "PNG", transparency=(1, 2, 3)))[0], [[255, 255, 255], [4, 5, 6]]
    )


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_greys_keep_their_range(form: str) -> None:
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    np.testing.assert_array_equal(
        pixels(encode(Image.fromarray(values), form))[0], [[0] * 3, [1] * 3, [128] * 3, [255] * 3]
    )


def test_floating_point_greys_are_refused() -> None:
    with pytest.raises(DecodeError, match="float32 greys of unknown range"):
        decode(encode(Image.new("F", (2, 2), 0.5), "TIFF"))


def test_32_bit_greys_beyond_16_bits_are_refused() -> None:
    with pytest.raises(DecodeError, match="int32 greys of unknown range"):
        decode(encode(Image.new("I", (2, 2), 70_000), "TIFF"))


def test_cmyk_and_black_and_white() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    np.testing.assert_allclose(pixels(encode(cyan, "JPEG", quality=95))[8, 8], [0, 255, 255], atol=12)
    np.testing.assert_array_equal(pixels(encode(Image.new("1", (2, 2), 1), "PNG")), np.full((2, 2, 3), 255))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(form: str) -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    encoded = encode(first, form, save_all=True, append_images=[second], duration=100)
    np.testing.assert_allclose(pixels(encoded)[4, 4], [255, 0, 0], atol=2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied(noise: Image.Image, orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(noise, form, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    assert upright.size == ((14, 10) if orientation < 5 else (10, 14))
    np.testing.assert_array_equal(pixels(encoded), np.asarray(upright.convert("RGB")))


def test_a_damaged_exif_block_costs_nothing(noise: Image.Image) -> None:
    np.testing.assert_array_equal(pixels(encode(noise, "PNG", exif=b"Exif\0\0nonsense")), np.asarray(noise))


def test_a_decoded_picture_does_not_hold_its_encoded_bytes(noise: Image.Image) -> None:
    assert all(getattr(decode(encode(noise, form)), "fp", None) is None for form in ("PNG", "JPEG"))


def test_the_first_of_a_cameras_two_pictures_is_taken(noise: Image.Image) -> None:
    encoded = encode(noise, "MPO", save_all=True, append_images=[Image.new("RGB", (5, 5))])
    assert decode(encoded).size == noise.size


def test_16_bit_greys_of_the_other_byte_order() -> None:
    big_endian = Image.frombytes("I;16B", (2, 1), b"\x80\x00\xff\xff")
    np.testing.assert_array_equal(pixels(encode(big_endian, "TIFF"))[0], [[128] * 3, [255] * 3])


def bomb(side: int) -> bytes:
    """A PNG of less than a kilobyte whose header promises side × side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused_without_a_warning(side: int) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(DecodeError, match=f"{side} × {side} pixels, over the limit of 89,478,485"):
        decode(bomb(side))
    assert limit == Image.MAX_IMAGE_PIXELS


def test_the_limit_of_pixels_can_be_set(noise: Image.Image) -> None:
    assert decode(encode(noise, "PNG"), max_pixels=140).size == (14, 10)
    with pytest.raises(DecodeError, match="over the limit of 139"):
        decode(encode(noise, "PNG"), max_pixels=139)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_image_is_refused(noise: Image.Image, form: str) -> None:
    encoded = encode(noise.resize((120, 90)), form)
    with pytest.raises(DecodeError, match="damaged or truncated"):
        decode(encoded[: len(encoded) // 2])


@pytest.mark.parametrize("data", [b"<html>not found</html>", b"caption", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\0" * 100])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"none of JPEG, PNG.*starts with"):
        decode(data)


def test_damage_never_raises_anything_but_decode_errors(noise: Image.Image) -> None:
    rng = np.random.default_rng(0)
    for form in ("PNG", "JPEG", "GIF", "WEBP", "BMP"):
        encoded = np.frombuffer(encode(noise, form), dtype=np.uint8)
        for _ in range(60):
            damaged = encoded.copy()
            damaged[rng.integers(0, len(damaged), 4)] = rng.integers(0, 256, 4)
            try:
                decode(damaged.tobytes())
            except DecodeError as error:
                assert "\n" not in str(error)


def test_a_header_is_refused_as_decoding_refuses_it(noise: Image.Image) -> None:
    for data in (bomb(10_000), b"<html>not found</html>", encode(noise, "JPEG")[:20], encode(noise, "PNG")[:20]):
        with pytest.raises(DecodeError) as of_header:
            check_header(data)
        with pytest.raises(DecodeError) as of_picture:
            decode(data)
        assert str(of_header.value) == str(of_picture.value)


def test_of_a_picture_cut_short_the_header_is_good(noise: Image.Image) -> None:
    for form in ("PNG", "JPEG", "GIF", "BMP"):
        check_header(encode(noise.resize((120, 90)), form)[:-500])


def test_a_slice_of_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "many"
    path.write_bytes(b"0123456789")
    assert read_encoded(Slice(path=path, offset=3, size=4)) == b"3456"
    with pytest.raises(DecodeError, match="the image at byte 8 of .*many is cut off: the file has changed"):
        read_encoded(Slice(path=path, offset=8, size=3))
    with pytest.raises(DecodeError, match="empty"):
        read_encoded(Slice(path=path, offset=3, size=0))
    with pytest.raises(DecodeError, match="256 MB, over the limit"):
        read_encoded(Slice(path=path, offset=0, size=MAX_IMAGE_BYTES + 1))
    with pytest.raises(DecodeError, match="cannot be read: No such file"):
        read_encoded(Slice(path=tmp_path / "none", offset=0, size=1))


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)
    with pytest.raises(DecodeError, match=r"missing.jpg cannot be read: No such file"):
        read_encoded(tmp_path / "missing.jpg")
    with pytest.raises(DecodeError, match="cannot be read: Is a directory"):
        read_encoded(tmp_path)
    with pytest.raises(DecodeError, match="not a regular file"):
        read_encoded(tmp_path / "pipe.jpg")
    with pytest.raises(DecodeError, match="empty"):
        read_encoded(tmp_path / "empty.jpg")
    with pytest.raises(DecodeError, match="256 MB, over the limit"):
        read_encoded(tmp_path / "huge.jpg")
    with pytest.raises(DecodeError, match="cannot be read"):
        read_encoded(tmp_path / "nul\0.jpg")
    with pytest.raises(DecodeError, match="empty"):
        decode(b"")
