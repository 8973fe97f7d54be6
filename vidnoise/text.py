"""Making addresses and names safe to show, without passwords, keys, tokens and terminal control characters."""

from __future__ import annotations

import re
import unicodedata

HIDDEN = "***"

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://(?:[^\s/@:]*:[^\s/@][^/@\n]{0,200}@(?=\S))?\S*(?: \w+=\S+)*")
"""An address inside a text, including passwords with spaces, and the settings of librtmp. Repetitions are bounded, as
matching a text of a megabyte would otherwise take hours.
"""

_MISTYPED = re.compile(
    r"\b((?:rtsps?|rtmp\w*|https?|s?ftp|srt|udp|tcp|rist|icecast):/?[^\s/@:]{1,1000}):[^\s/@][^\s@]{0,1000}@",
    re.IGNORECASE,
)
"""An address with a password whose slash is missing."""

_END = ":;,.)]}'\""
"""Punctuation that belongs to the sentence rather than the address."""

_HARMLESS = frozenset({
    "broadcast", "buffer_size", "connect_timeout", "fifo_size", "latency", "linger", "listen", "listen_timeout",
    "localaddr", "localport", "maxbw", "mode", "mss", "overrun_nonfatal", "payload_size", "pkt_size", "rcvlatency",
    "recv_buffer_size", "reuse", "rtcpport", "rw_timeout", "send_buffer_size", "tcp_nodelay", "timeout", "transport",
    "transtype", "ttl",
})  # fmt: skip
"""Settings in the query of an address that are safe to show. All others may be secrets."""


def shown(address: str) -> str:
    """Make an address safe to show in messages, statistics and logs; paths are unchanged.

    Passwords, queries (except :data:`_HARMLESS` settings) and stream keys of RTMP are hidden, and control characters
    are escaped.
    """
    head, separator, rest = address.partition("://")
    scheme = head.rpartition(":")[2]  # "async:http", "file:..."
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return printable(_MISTYPED.sub(rf"\1:{HIDDEN}@", address))
    location, mark, query = _split(rest)
    location = _without_password(location)
    if scheme.lower().startswith("rtmp"):
        location, query = _without_key(location), query.partition(" ")[0]
    if mark:
        query = "&".join(_setting(part) for part in re.split("[&;]", query))
    return printable(f"{head}://{location}{mark}{query}")


def redacted(text: str) -> str:
    """Make every address inside a text safe to show; see :func:`shown`."""

    def hide(found: re.Match[str]) -> str:
        address = found[0]
        at = len(address.rstrip(_END))
        return shown(address[:at]) + address[at:]

    return _MISTYPED.sub(rf"\1:{HIDDEN}@", _ADDRESS.sub(hide, text))


def safe(text: str) -> str:
    """Make a text that contains names and addresses safe to show, in one line."""
    return printable(redacted(text))


def printable(text: str) -> str:
    r"""Escape control characters, including those that change the direction of writing.

    >>> printable("a\x1b[31m")
    'a\\x1b[31m'
    """
    return text if text.isprintable() else "".join(c if _is_harmless(c) else _escaped(c) for c in text)


def _is_harmless(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # an undecodable byte of a file name
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _split(rest: str) -> tuple[str, str, str]:
    """Split at the first ``?`` or ``#``: the part before it, the character, and the part after it."""
    found = re.search("[?#]", rest)
    return (rest, "", "") if found is None else (rest[: found.start()], found[0], rest[found.end() :])


def _without_password(location: str) -> str:
    user, at, host = location.rpartition("@")
    name, colon, _ = user.partition(":")
    if not at or (not colon and "/" in user):  # an @ in a file name
        return location
    return f"{name}:{HIDDEN}@{host}" if colon else f"{HIDDEN}@{host}"


def _without_key(location: str) -> str:
    """Hide the key of an RTMP address, which is the stream name after host and application."""
    location, blank, _ = location.partition(" ")
    host, slash, path = location.partition("/")
    app, second, key = path.partition("/")
    key = HIDDEN if key else ""
    return f"{host}{slash}{app}{second}{key}" + (f" {HIDDEN}" if blank else "")


def _setting(part: str) -> str:
    name, equals, value = part.partition("=")
    if name in _HARMLESS and re.fullmatch(r"[\w.:-]*", value):
        return part
    return f"{name}={HIDDEN}" if equals else HIDDEN if part else ""
