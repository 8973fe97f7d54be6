"""Selection of an input's tracks: ``a:eng,-s`` keeps the English audio and no subtitles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import av.stream

from vidnoise.errors import UsageError
from vidnoise.frame.passthrough import is_same_language

_KINDS = {"v": "video", "a": "audio", "s": "subtitle", "d": "data", "t": "attachment"}
"""FFmpeg's letters for kinds of streams. Cover pictures count as attachments."""


@dataclass(frozen=True, slots=True)
class _Rule:
    text: str
    kind: str
    which: str
    """Track number or language; empty for all tracks of the kind."""
    is_excluded: bool

    def matches(self, number: int, stream: av.stream.Stream) -> bool:
        if not self.which:
            return True
        if self.which.isdigit():
            return number == int(self.which)
        return is_same_language(self.which, stream.metadata.get("language", ""))


class TrackSelection:
    """A selection of tracks.

    Args:
        text: Rules separated by commas. ``a:1`` keeps only the second audio track, ``a:eng`` only English ones; several
            rules of the same kind add up. ``-a:0`` drops the first audio track, ``-s`` all subtitles. Kinds are ``v``,
            ``a``, ``s``, ``d`` (data) and ``t`` (attachments); kinds without a rule are kept. None keeps everything.

    Raises:
        UsageError: ``text`` is invalid, or drops the video.
    """

    def __init__(self, text: str | None) -> None:
        self._rules = [] if text is None else [_parsed(part.strip(), text) for part in text.split(",")]

    def select(self, streams: Sequence[av.stream.Stream], uri: str) -> list[av.stream.Stream]:
        """Return the selected ``streams`` of an input, in order.

        Raises:
            UsageError: A rule matches no stream.
        """
        if not self._rules:
            return list(streams)
        kept = []
        fitting: set[_Rule] = set()
        numbers: dict[str, int] = {}
        for stream in streams:
            kind = _kind(stream)
            number = numbers[kind] = numbers.get(kind, -1) + 1
            rules = [c for c in self._rules if c.kind == kind]
            matching = [c for c in rules if c.matches(number, stream)]
            fitting.update(matching)
            is_wanted = all(c.is_excluded for c in rules) or any(not c.is_excluded for c in matching)
            if is_wanted and not any(c.is_excluded for c in matching):
                kept.append(stream)
        for choice in self._rules:
            # Dropping all tracks of a kind that has none is fine.
            if choice not in fitting and not (choice.is_excluded and not choice.which):
                raise UsageError(
                    f"{uri}: no track fits {choice.text!r}; there {_inventory(choice.kind, streams)}", "tracks"
                )
        return kept


def _parsed(part: str, text: str) -> _Rule:
    match = re.fullmatch(r"(-?)([vasdt])(?::(\d+|[A-Za-z]{2,8}))?", part)
    if match is None:
        raise UsageError(
            f"tracks {text!r}: {part!r} is none of v:1, a:0, a:eng, s, -s, -a:1, -d, -t and the like", "tracks"
        )
    is_excluded, letter, which = match.groups()
    if letter == "v" and is_excluded and not which:
        raise UsageError(f"tracks {text!r}: without video there is nothing to denoise", "tracks")
    return _Rule(part, _KINDS[letter], which or "", bool(is_excluded))


def _kind(stream: av.stream.Stream) -> str:
    is_cover = stream.type == "video" and stream.disposition & av.stream.Disposition.attached_pic
    return "attachment" if is_cover else stream.type


def _inventory(kind: str, streams: Sequence[av.stream.Stream]) -> str:
    languages = [s.metadata.get("language", "no language") for s in streams if _kind(s) == kind]
    if not languages:
        return f"is no {kind} track"
    tracks = ", ".join(f"{n} ({language})" for n, language in enumerate(languages))
    return f"{'is' if len(languages) == 1 else 'are'} {kind} {tracks}"
