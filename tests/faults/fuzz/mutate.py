"""How an input is damaged. All chance comes from the generator that is handed in."""

from __future__ import annotations

import random
import re

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)

_WORDS = (
    "-1", "0", "1e7", "1e999", "NaN", "Infinity", "-Infinity", "null", "true", "[]", "{}", '""', "[[[[[[[[", "]", "}",
    "999999999999999999999", "1/0", "..", "\x00", "\x1b[2J", "\u202e", "%s%n", "{", "{}", "{0}", ":", "://", "'",
    '"', "\\", "\n", "&a [*a]", "!!python/object", "../../x", "é", "\ud800", "=", "#", "inf", "0x10", "1_000",
    "2020-99-99",
)  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> bytes:
    """``data`` with one to a few things wrong: bits, numbers, lengths, order; or the end missing."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8, 30))):
        if not found:
            break
        at = min(rng.randrange(len(found)), rng.randrange(len(found)))  # headers lie at the beginning
        kind = rng.randrange(9)
        if kind == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[at] = rng.randrange(256)
        elif kind == 2:
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice(_NUMBERS) & (256**size - 1)
            found[at : at + size] = number.to_bytes(size, rng.choice(("big", "little")))
        elif kind == 3:
            del found[at : at + _length(rng)]
        elif kind == 4:
            found[at:at] = found[at : at + _length(rng)]
        elif kind == 5:
            found[at:at] = rng.randbytes(_length(rng))
        elif kind == 6:
            other, size = rng.randrange(len(found)), _length(rng)
            found[at : at + size] = found[other : other + size]
        elif kind == 7:
            found[at : at + _length(rng)] = bytes(_length(rng))
        elif rng.random() < 0.3:
            del found[rng.randrange(len(found)) :]
    return bytes(found)


def _length(rng: random.Random) -> int:
    return int(2 ** rng.uniform(0, 9))


def damaged_text(text: str, rng: random.Random) -> str:
    """A text with numbers, words and signs replaced, dropped or doubled."""
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        tokens = re.findall(r"\w+|\W", text) or [""]
        at = rng.randrange(len(tokens))
        kind = rng.randrange(6)
        if kind == 0:
            tokens[at] = rng.choice(_WORDS)
        elif kind == 1:
            tokens.insert(at, rng.choice(_WORDS))
        elif kind == 2:
            del tokens[at]
        elif kind == 3:
            tokens[at] *= rng.choice((2, 3, 1000))
        elif kind == 4:
            other = rng.randrange(len(tokens))
            tokens[at], tokens[other] = tokens[other], tokens[at]
        else:
            tokens[at] = damaged(tokens[at].encode("utf-8", "replace"), rng).decode("utf-8", "replace")
        text = "".join(tokens)
    return text
