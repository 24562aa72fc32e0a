"""Damages files at random, as bad disks, broken downloads and attackers do."""

import random
import struct

EXTREMES = (0, 1, 2**31 - 1, 2**32 - 1)


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Change, take out or repeat some bytes."""
    mutant = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(len(mutant))
        kind = chance.randrange(4)
        if kind == 0:
            mutant[place] = chance.randrange(256)
        elif kind == 1:
            mutant[place : place + 4] = struct.pack("<I", chance.choice(EXTREMES))
        elif kind == 2:
            del mutant[place : place + chance.randrange(1, 40)]
        else:
            mutant[place:place] = mutant[place : place + chance.randrange(1, 40)]
        if not mutant:
            break
    return bytes(mutant)
