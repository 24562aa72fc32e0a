"""Checksums of files that are too large for a cryptographic one at each start."""

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_BLOCK = 1 << 22
_PIECE = 64 * _BLOCK  # the piece of a file that one thread reads


def measure_files(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Measure size and CRC-32 (of the CRC-32 of pieces) of files: gigabytes at each start.

    CRC-32 detects every burst of up to 32 wrong bits, which is enough against damage.
    """
    sizes = [path.stat().st_size for path in paths]
    with ThreadPoolExecutor() as pool:  # zlib releases Python's lock
        pieces = [
            [pool.submit(_sum_piece, path, start) for start in range(0, size, _PIECE)]
            for path, size in zip(paths, sizes, strict=True)
        ]
        sums = [b"".join(piece.result() for piece in each) for each in pieces]
    return list(zip(sizes, map(zlib.crc32, sums), strict=True))


def _sum_piece(path: Path, start: int) -> bytes:
    checksum = 0
    with path.open("rb") as file:
        file.seek(start)
        for _ in range(0, _PIECE, _BLOCK):
            checksum = zlib.crc32(file.read(_BLOCK), checksum)
    return checksum.to_bytes(4, "big")
