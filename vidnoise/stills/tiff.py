"""Metadata of TIFF files, and EXIF, which has the structure of a TIFF file without a picture."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from vidnoise.stills.fields import Density, PictureTags

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Size of a value in bytes by its type."""
_WORDS = {5: 4, 10: 4}
"""Number of bytes that are swapped together by type, if it is not the whole value."""
_BYTE, _SHORT, _LONG, _RATIONAL, _UNDEFINED = 1, 3, 4, 5, 7

_DIRECTORIES = (34665, 34853, 40965)
"""Tags that point to further directories: EXIF, GPS, interoperability."""
_ORIENTATION, _X, _Y, _UNIT = 274, 282, 283, 296
_XMP, _IPTC, _PHOTOSHOP, _ICC = 700, 33723, 34377, 34675
_SAMPLES_PER_PIXEL, _EXTRA_SAMPLES = 277, 338
_PREMULTIPLIED, _PLAIN_ALPHA = 1, 2
_UNITS = {2: "inch", 3: "cm"}
_OF_THE_SAMPLES = frozenset(
    {
        *range(254, 260), 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, *range(288, 294), 297, 317, 320,
        *range(321, 326), 330, *range(332, 342), 347, *range(512, 522), 529, 530, 531, 532, 32997, 32998, 37724,
    }
)  # fmt: skip
"""Tags that describe the storage of samples, which the encoder writes anew."""
_MOST_PICTURES = 1000


@dataclass(frozen=True, slots=True)
class _Entry:
    type: int
    count: int
    data: bytes
    """Little-endian."""
    directory: dict[int, _Entry] | None = None


_Directory: TypeAlias = "dict[int, _Entry]"


def _order(data: bytes) -> str:
    if data[:4] == b"II*\0":
        return "<"
    if data[:4] == b"MM\0*":
        return ">"
    raise ValueError("no TIFF")


def _parse(data: bytes, offset: int, order: str, depth: int = 0) -> tuple[_Directory, int]:
    """Return a directory, and the offset of the next one (0 if there is none)."""
    (count,) = struct.unpack_from(f"{order}H", data, offset)
    found: _Directory = {}
    for i in range(count):
        at = offset + 2 + 12 * i
        tag, type, n = struct.unpack_from(f"{order}HHI", data, at)
        size = _SIZES.get(type, 0) * n
        if not size:
            continue
        (place,) = struct.unpack_from(f"{order}I", data, at + 8) if size > 4 else (at + 8,)
        value = data[place : place + size]
        if len(value) < size:
            raise ValueError(f"tag {tag} lies behind the end")
        if order == ">":
            value = _swapped(value, _WORDS.get(type, _SIZES[type]))
        directory = None
        if tag in _DIRECTORIES:
            if depth > 2:
                raise ValueError("directories inside each other")
            directory, _ = _parse(data, int.from_bytes(value[:4], "little"), order, depth + 1)
        found[tag] = _Entry(type, n, value, directory)
    after = offset + 2 + 12 * count
    (following,) = struct.unpack_from(f"{order}I", data, after) if after + 4 <= len(data) else (0,)
    return found, following


def _swapped(value: bytes, size: int) -> bytes:
    return b"".join(value[i : i + size][::-1] for i in range(0, len(value), size))


def _built(directory: _Directory, offset: int) -> bytes:
    """Return the bytes of a directory for placement at ``offset``, little-endian."""
    entries = sorted(directory.items())
    head = [struct.pack("<H", len(entries))]
    behind = b""
    begin = offset + 2 + 12 * len(entries) + 4
    for tag, entry in entries:
        data, type, count = entry.data, entry.type, entry.count
        if entry.directory is not None:
            place = begin + len(behind)
            inner = _built(entry.directory, place)
            behind += inner + bytes(len(inner) % 2)
            data, type, count = struct.pack("<I", place), _LONG, 1
        if len(data) > 4:
            place, data = begin + len(behind), data + bytes(len(data) % 2)
            behind += data
            data = struct.pack("<I", place)
        head.append(struct.pack("<HHI", tag, type, count) + data.ljust(4, b"\0"))
    return b"".join([*head, bytes(4), behind])


def _exif(directory: _Directory) -> bytes:
    return b"II*\0" + struct.pack("<I", 8) + _built(directory, 8) if directory else b""


def _first_directory(data: bytes) -> _Directory:
    order = _order(data)
    return _parse(data, struct.unpack_from(f"{order}I", data, 4)[0], order)[0]


def _density(directory: _Directory) -> Density | None:
    if _X not in directory or _Y not in directory:
        return None
    (x, per_x), (y, per_y) = (struct.unpack_from("<II", directory[tag].data.ljust(8, b"\0")) for tag in (_X, _Y))
    unit = int.from_bytes(directory[_UNIT].data[:2], "little") if _UNIT in directory else 2
    if not (x and per_x and y and per_y) or unit not in _UNITS:
        return None
    return Density(Fraction(x, per_x), Fraction(y, per_y), _UNITS[unit])


def _density_entries(density: Density) -> _Directory:
    found: _Directory = {}
    for tag, value in ((_X, density.x), (_Y, density.y)):
        value = Fraction(value).limit_denominator(10000)
        found[tag] = _Entry(_RATIONAL, 1, struct.pack("<II", value.numerator, value.denominator))
    code = next((code for code, unit in _UNITS.items() if unit == density.unit), 1)
    return {**found, _UNIT: _Entry(_SHORT, 1, struct.pack("<H", code))}


def has_density(exif: bytes) -> bool:
    """Whether EXIF data states a resolution in pixels per inch or centimetre."""
    return density_of(exif) is not None


def density_of(exif: bytes) -> Density | None:
    """Return the resolution that EXIF data states; None if it states none."""
    try:
        return _density(_first_directory(exif)) if exif else None
    except (ValueError, struct.error):
        return None


def orientation_of(exif: bytes) -> int:
    """Return the orientation that EXIF data states, 1 (upright) to 8."""
    try:
        found = _first_directory(exif).get(_ORIENTATION) if exif else None
    except (ValueError, struct.error):
        return 1
    return int.from_bytes(found.data[:2], "little") if found else 1


def exif_of(*, density: Density | None = None, orientation: int | None = None) -> bytes:
    """Make EXIF data with a resolution and an orientation, 1 to 8, only."""
    found = _density_entries(density) if density else {}
    if orientation is not None:
        found[_ORIENTATION] = _Entry(_SHORT, 1, struct.pack("<H", orientation))
    return _exif(found)


def n_pictures(data: bytes) -> int:
    """Return the number of full-size pictures in a TIFF file."""
    order = _order(data)
    (offset,) = struct.unpack_from(f"{order}I", data, 4)
    count = 0
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MOST_PICTURES:
        seen.add(offset)
        directory, offset = _parse(data, offset, order)
        small = directory.get(254)
        count += not (small and small.data[0] & 1)
    return count


def read(data: bytes) -> PictureTags:
    """Return the tags of a TIFF file; raises ValueError or struct.error if it is damaged."""
    directory = _first_directory(data)
    aside = {_XMP, _IPTC, _PHOTOSHOP, _ICC, _X, _Y, _UNIT}
    about = {tag: entry for tag, entry in directory.items() if tag not in _OF_THE_SAMPLES | aside}

    def data_of(tag: int) -> bytes:
        return directory[tag].data if tag in directory else b""

    count = n_pictures(data)
    sides = tuple(int.from_bytes(data_of(tag), "little") for tag in (256, 257))
    kept = [("IPTC", tag) for tag in (_IPTC, _PHOTOSHOP) if tag in directory]
    if data_of(_EXTRA_SAMPLES)[:1] == bytes([_PREMULTIPLIED]):
        kept.append(("that colours are premultiplied by alpha", _EXTRA_SAMPLES))
    return PictureTags(
        "tiff", exif=_exif(about), icc=data_of(_ICC), xmp=data_of(_XMP), density=_density(directory),
        kept=tuple((name, struct.pack("<HHI", tag, directory[tag].type, directory[tag].count) + directory[tag].data)
                   for name, tag in kept),
        lost=(f"all pictures but the first of {count}",) if count > 1 else (), size=sides if all(sides) else None,
    )  # fmt: skip


def write(data: bytes, tags: PictureTags) -> tuple[bytes, list[str]]:
    """Replace the tags of an encoded file; returns the file, and the names of the tags that it cannot hold."""
    lost: list[str] = []
    own = {tag: entry for tag, entry in _first_directory(data).items() if tag in _OF_THE_SAMPLES}
    about: _Directory = {}
    if tags.exif:
        try:
            about = {t: e for t, e in _first_directory(tags.exif).items() if t not in _OF_THE_SAMPLES | {_ICC}}
        except (ValueError, struct.error):
            lost.append("EXIF (which is damaged)")
    if tags.density is not None:
        about.update(_density_entries(tags.density))
    if tags.icc:
        about[_ICC] = _Entry(_UNDEFINED, len(tags.icc), tags.icc)
    if tags.xmp:
        about[_XMP] = _Entry(_BYTE, len(tags.xmp), tags.xmp)
    for _, content in tags.kept if tags.kind == "tiff" else ():
        tag, type, count = struct.unpack_from("<HHI", content)
        about[tag] = _Entry(type, count, content[8:])
    samples = int.from_bytes(own[_SAMPLES_PER_PIXEL].data[:2], "little") if _SAMPLES_PER_PIXEL in own else 1
    if samples in (2, 4) and _EXTRA_SAMPLES not in about:  # FFmpeg's encoder does not say what the last one is
        about[_EXTRA_SAMPLES] = _Entry(_SHORT, 1, struct.pack("<H", _PLAIN_ALPHA))
    data += bytes(len(data) % 2)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + _built({**own, **about}, len(data)), lost
