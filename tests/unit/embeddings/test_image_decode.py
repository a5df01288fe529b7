"""What comes as a picture is anything: every file gives RGB pixels or an ImageError, and nothing is unpacked before its header is checked."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from recsys.embeddings import image_decode
from recsys.embeddings.image_decode import decode
from recsys.errors import DataError, ImageError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def halves(left: object = RED, right: object = BLUE, mode: str = "RGB", size: tuple[int, int] = (32, 16)) -> Image.Image:
    image = Image.new(mode, size, left)  # type: ignore[arg-type]
    image.paste(right, (size[0] // 2, 0, *size))  # type: ignore[arg-type]
    return image


def near(pixel: object, expected: tuple[int, int, int], within: int = 6) -> bool:
    return bool(np.abs(np.asarray(pixel, dtype=int) - expected).max() <= within)


def png_of(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand: the header says any size, the data behind it may be short."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *chunks, (b"IEND", b"")])


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "WEBP", "JPEG"])
def test_formats(format: str) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(format, {})
    image = decode(encoded(halves(), format, **options))
    assert image.mode == "RGB" and image.size == (32, 16)
    assert near(image.getpixel((4, 8)), RED) and near(image.getpixel((28, 8)), BLUE)


def test_lossless_pixels_are_exact() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(decode(encoded(Image.fromarray(pixels), "PNG"))), pixels)


@pytest.mark.parametrize(
    ("orientation", "size", "red", "blue"),
    [
        (1, (32, 16), (2, 8), (30, 8)),
        (2, (32, 16), (30, 8), (2, 8)),
        (3, (32, 16), (30, 8), (2, 8)),
        (6, (16, 32), (8, 2), (8, 30)),
        (8, (16, 32), (8, 30), (8, 2)),
    ],
)
def test_turned_as_exif_says(orientation: int, size: tuple[int, int], red: tuple[int, int], blue: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = decode(encoded(halves(), "JPEG", quality=95, subsampling=0, exif=exif))
    assert image.size == size and near(image.getpixel(red), RED) and near(image.getpixel(blue), BLUE)


def test_unreadable_exif_is_not_the_pixels_fault() -> None:
    image = decode(encoded(halves(), "JPEG", quality=95, subsampling=0, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xffgarbage"))
    assert near(image.getpixel((4, 8)), RED)


def test_grey_one_bit_and_sixteen_bit() -> None:
    assert decode(encoded(Image.new("L", (4, 4), 77), "PNG")).getpixel((0, 0)) == (77, 77, 77)
    assert decode(encoded(Image.new("L", (16, 16), 77), "JPEG")).mode == "RGB"
    assert decode(encoded(Image.new("1", (4, 4), 1), "PNG")).getpixel((0, 0)) == WHITE
    sixteen = Image.fromarray(np.full((4, 4), 77 << 8 | 200, dtype=np.uint16))
    assert decode(encoded(sixteen, "PNG")).getpixel((0, 0)) == (77, 77, 77)


def test_transparency_lies_over_white() -> None:
    half_red = halves((255, 0, 0, 128), (0, 0, 0, 0), "RGBA")
    for data in (encoded(half_red, "PNG"), encoded(half_red, "WEBP", lossless=True, exact=True)):
        image = decode(data)
        assert near(image.getpixel((4, 8)), (255, 127, 127), 2) and image.getpixel((28, 8)) == WHITE
    assert near(decode(encoded(Image.new("LA", (4, 4), (0, 128)), "PNG")).getpixel((0, 0)), (127, 127, 127), 2)
    palette = halves(0, 1, "P")
    palette.putpalette([*RED, *BLUE])
    image = decode(encoded(palette, "PNG", transparency=1))
    assert image.getpixel((4, 8)) == RED and image.getpixel((28, 8)) == WHITE
    assert decode(encoded(palette, "PNG")).getpixel((28, 8)) == BLUE
    assert decode(encoded(halves(), "PNG", transparency=BLUE)).getpixel((28, 8)) == WHITE


def test_cmyk() -> None:
    image = decode(encoded(halves((0, 255, 255, 0), (255, 255, 0, 0), "CMYK"), "JPEG", quality=95, subsampling=0))
    assert near(image.getpixel((4, 8)), RED, 10) and near(image.getpixel((28, 8)), BLUE, 10)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(Image.new("RGB", (8, 8), RED), format, save_all=True, append_images=[Image.new("RGB", (8, 8), c) for c in (GREEN, BLUE)], **options)
    assert decode(data).getpixel((4, 4)) == RED


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"This is a text that somebody named .jpg\n" * 20, "not readable as JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not readable as JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not readable as JPEG"),
        (b"\xff\xd8\xff\xe0", "not readable as JPEG"),
        (b"\x89PNG\r\n\x1a\n", "not readable as JPEG"),
        (png_of(50_000, 50_000), "pixels"),
        (png_of(10_000, 6_000), "60,000,000 pixels, the limit is 50,000,000"),
        (png_of(60_000, 8, (b"IDAT", zlib.compress(bytes(60_000 * 3 * 8 + 8)))), "more than 100 times"),
        (png_of(0, 5), "PNG|not readable|no pixels"),
        (png_of(64, 64), "broken or truncated"),
        (png_of(64, 64, (b"IDAT", zlib.compress(bytes(100)))), "truncated"),
        (png_of(64, 64, (b"IDAT", b"no deflate stream")), "broken"),
    ],
    ids=["empty", "text", "svg", "eps", "jpeg-begin", "png-begin", "bomb", "large", "line", "no-pixels", "no-data", "short-data", "no-stream"],
)
def test_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data)
    assert isinstance(caught.value, DataError) and "\n" not in str(caught.value)


@pytest.mark.parametrize("format", ["TIFF", "PPM", "ICO", "PDF"])
def test_other_formats_are_refused(format: str) -> None:
    with pytest.raises(ImageError, match="not readable"):
        decode(encoded(halves(), format))


def noise(format: str) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), format)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated(format: str, share: float) -> None:
    data = noise(format)
    with pytest.raises(ImageError):
        decode(data[: int(len(data) * share)])


def test_a_bomb_is_refused_before_a_pixel_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header of 1.6 GB before 100 bytes of compressed zeros."""

    def load(*arguments: object) -> None:
        raise AssertionError("unpacked")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(ImageError, match="pixels"):
        decode(png_of(23_000, 23_000, (b"IDAT", zlib.compress(bytes(100_000)))))
    with pytest.raises(ImageError, match="limit is 100"):
        decode(encoded(halves(), "PNG"), max_pixels=100)


def test_a_text_bomb_inside_a_png_is_refused() -> None:
    """A compressed comment of 64 MB in 64 KB."""
    comment = b"Comment\x00\x00" + zlib.compress(bytes(64_000_000))
    with pytest.raises(ImageError):
        decode(png_of(8, 8, (b"zTXt", comment), (b"IDAT", zlib.compress(bytes(8 * 25)))))


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    data = encoded(halves(size=(64, 64)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert decode(data).size == (64, 64)
    with pytest.raises(ImageError, match="scans, the limit is 100"):
        decode(data[:last] + data[last:-2] * 500 + b"\xff\xd9")


@settings(max_examples=150)
@given(
    st.sampled_from(["JPEG", "PNG", "BMP", "GIF", "WEBP"]),
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=6)), min_size=1, max_size=5),
)
def test_damaged_files_give_pixels_or_an_image_error(format: str, damage: list[tuple[int, bytes]]) -> None:
    data = bytearray(_WHOLE[format])
    for place, replacement in damage:
        start = place % len(data)
        data[start : start + len(replacement)] = replacement
    try:
        image = decode(bytes(data), max_pixels=1_000_000)
    except ImageError as error:
        assert str(error)
    else:
        assert image.mode == "RGB" and image.width * image.height <= 1_000_000


_WHOLE = {format: noise(format) for format in ["JPEG", "PNG", "BMP", "GIF", "WEBP"]}


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode(data)


@pytest.mark.parametrize(("size", "enough", "expected"), [((800, 400), 100, (200, 100)), ((800, 400), 101, (400, 200)), ((64, 4000), 64, (64, 4000))])
def test_a_jpeg_is_unpacked_no_larger_than_needed(size: tuple[int, int], enough: int, expected: tuple[int, int]) -> None:
    colours = np.random.default_rng(2).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    whole = Image.fromarray(colours).resize(size, Image.Resampling.BILINEAR)
    small = decode(encoded(whole, "JPEG", quality=95), enough=enough)
    assert small.size == expected
    difference = np.asarray(small, dtype=int) - np.asarray(whole.resize(expected, Image.Resampling.BOX), dtype=int)
    assert np.abs(difference).mean() < 3
    assert decode(encoded(whole, "PNG"), enough=enough).size == size


def test_rules_have_a_number() -> None:
    """Pixels that are decided here and not by Pillow: when this test needs other numbers, raise RULES, for the vectors move."""
    cases: list[Callable[[], bytes]] = [
        lambda: encoded(halves((255, 0, 0, 128), (0, 0, 0, 0), "RGBA"), "PNG"),
        lambda: encoded(Image.fromarray(np.full((4, 4), 0x4DC8, dtype=np.uint16)), "PNG"),
    ]
    assert image_decode.RULES == "1"
    assert [decode(case()).getpixel((0, 0)) for case in cases] == [(255, 127, 127), (77, 77, 77)]
