"""Texts of pictures in EXIF, where JPEG and WebP files have room for them.

The one for programs is the image's description, after its key; the readable one is the user's
comment, where AUTOMATIC1111's web UI writes it and image viewers look.
"""

from collections.abc import Mapping

from PIL import Image
from PIL.ExifTags import IFD, Base

_UTF_16 = b"UNICODE\0"  # the code of a comment's characters


def write_texts(key: str, text: str, comment: str) -> Image.Exif:
    """Make the EXIF data of a picture.

    Args:
        text: ASCII.
        comment: Any characters.
    """
    exif = Image.Exif()
    exif[Base.ImageDescription] = f"{key} {text}"
    exif[IFD.Exif] = {Base.UserComment: _UTF_16 + comment.encode("utf-16-be")}
    return exif


def read_texts(image: Image.Image, key: str) -> Mapping[str, str]:
    """Read both texts as ``text`` and ``comment``; empty where there are none of this key."""
    try:
        exif = image.getexif()
        start, _, text = str(exif.get(Base.ImageDescription, "")).partition(" ")
        comment = exif.get_ifd(IFD.Exif).get(Base.UserComment, b"")
        decoded = bytes(comment).removeprefix(_UTF_16).decode("utf-16-be")
    except Exception:  # EXIF data of any program, damaged in any way
        return {}
    return {"text": text, "comment": decoded} if start == key else {}
