"""`decode`: the bytes of an untrusted picture file to pixels, with its limits checked on the header before anything is unpacked."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import ExifTags, Image

from recsys.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 50_000_000
"""150 MB as RGB. A picture of an item is far below; a phone's camera makes 12 to 50 million."""
MAX_ASPECT = 100
"""Longer side over the shorter. A line of 50,000 x 1 passes the pixel limit, but brought to 224 pixels on its shorter side it has 2.5 billion."""
MAX_SCANS = 100
"""Of a progressive JPEG, which usually has ten; every scan costs a pass over all pixels, whatever its own size."""
RULES = "1"
"""Raised when the pixels of any accepted file change; part of the embedding space."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, enough: int = 0) -> Image.Image:
    """The picture as RGB, 8 bits a channel: first frame, turned as its EXIF says, transparency over white, 16-bit greys scaled (not clipped).

    Colour profiles are not applied. A file whose EXIF is unreadable is taken as it stands.

    enough: pixels that the shorter side must keep; a JPEG is then unpacked at a half, a quarter or an eighth of its size where it may be,
    which is several times faster. 0: at its full size.

    Raises:
        ImageError: empty, no format of `FORMATS`, truncated or broken, or beyond a limit; the message says which. Nothing else is raised.
    """
    if not data:
        raise ImageError("the picture is empty (0 bytes)")
    what = f"picture of {len(data):,} bytes"
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{what}: {error}") from None
    except Exception as error:  # Pillow's readers raise whatever a broken header leads them to
        begin = bytes(data[:8]).hex(" ")
        raise ImageError(f"{what}: not readable as {', '.join(FORMATS)}, it begins with {begin} ({type(error).__name__})") from None
    what = f"{what}, {image.format} of {image.width:,} x {image.height:,}"
    _require_within_limits(image, data, what, max_pixels)
    try:
        if enough:
            image.draft(None, (enough, enough))  # of these formats JPEG alone has it
        image.load()
        _require_within_limits(image, data, what, max_pixels)  # a first frame may be larger than the header said
        return _turned(_opaque(image), image)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{what}: broken or truncated: {error or type(error).__name__}") from None


def _require_within_limits(image: Image.Image, data: bytes, what: str, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{what}: no pixels")
    if width * height > max_pixels:
        raise ImageError(f"{what}: {width * height:,} pixels, the limit is {max_pixels:,}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{what}: one side is more than {MAX_ASPECT} times the other")
    # Inside compressed data 0xFF is always followed by 0x00: the marker is found by a plain search.
    if image.format in ("JPEG", "MPO") and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise ImageError(f"{what}: {scans} scans, the limit is {MAX_SCANS}")


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255: almost any such picture would be white.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(layers, mask=layers.getchannel("A"))
        return white
    return image.convert("RGB")


def _turned(pixels: Image.Image, source: Image.Image) -> Image.Image:
    try:
        orientation = source.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, ValueError, KeyError, TypeError, OSError, IndexError, struct.error):
        return pixels
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return pixels if turn is None else pixels.transpose(turn)
