"""Text files of users: in UTF-8, with or without a byte order mark, and of a limited size."""

from pathlib import Path

from fastdeploy_diffusion.errors import BadInputError


def read_text_file(
    path: Path, most: int, error: type[BadInputError], *, owner: str = "", allowed: str, fix: str
) -> str:
    """Read a text file whole.

    Args:
        most: Its largest size, in bytes.
        error: The class of errors.
        owner: Names the option that the file is for, in front of the file's own name.
        allowed: Which files there may be, for messages.
        fix: What to do about a file that is too large.

    Raises:
        BadInputError: Of that class: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as caught:  # a name may hold a character that no file may
        reason = getattr(caught, "strerror", None) or caught
        raise error(f"{owner}{path} cannot be read: {reason}", allowed=allowed) from caught
    if len(content) > most:
        allowed = f"{allowed}; at most {most:,} bytes"
        raise error(f"{owner}{path} is too large", allowed=allowed, fix=fix)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as caught:
        line = content[: caught.start].count(b"\n") + 1
        is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        raise error(
            f"{owner}{path}, line {line}, is not UTF-8",
            allowed=f"{allowed}; in UTF-8",
            fix=f"iconv {'-f utf-16 ' if is_utf16 else ''}-t utf-8 {path}",
        ) from caught
