"""Which of an input's tracks are wanted: ``a:eng,-s`` keeps the English sound and no subtitles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import av.stream

from vidnoise.errors import UsageError
from vidnoise.frame.passthrough import is_same_language

_KINDS = {"v": "video", "a": "audio", "s": "subtitle", "d": "data", "t": "attachment"}
"""Letters of kinds, FFmpeg's. Cover pictures count as attachments."""


@dataclass(frozen=True, slots=True)
class _Choice:
    text: str
    kind: str
    which: str
    """A number, a language, or empty for all of the kind."""
    is_out: bool

    def matches(self, number: int, stream: av.stream.Stream) -> bool:
        if not self.which:
            return True
        if self.which.isdigit():
            return number == int(self.which)
        return is_same_language(self.which, stream.metadata.get("language", ""))


class Tracks:
    """A choice of tracks.

    Args:
        text: Choices with commas between. ``a:1`` keeps, of the audio, the second track only; ``a:eng`` the English
            ones; more choices of the same kind add up. ``-a:0`` leaves the first out, ``-s`` all subtitles. Kinds are
            ``v``, ``a``, ``s``, ``d`` (data) and ``t`` (attachments); of a kind that is not named, all are kept.
            None keeps everything.

    Raises:
        UsageError: ``text`` cannot be read, or leaves the video out.
    """

    def __init__(self, text: str | None) -> None:
        self._choices = [] if text is None else [_parsed(part.strip(), text) for part in text.split(",")]

    def chosen(self, streams: Sequence[av.stream.Stream], uri: str) -> list[av.stream.Stream]:
        """Those of an input's ``streams`` that are wanted, in their order.

        Raises:
            UsageError: A choice fits none of them.
        """
        if not self._choices:
            return list(streams)
        kept = []
        fitting: set[_Choice] = set()
        numbers: dict[str, int] = {}
        for stream in streams:
            kind = _kind(stream)
            number = numbers[kind] = numbers.get(kind, -1) + 1
            matching = [c for c in self._choices if c.kind == kind and c.matches(number, stream)]
            fitting.update(matching)
            is_wanted = all(c.is_out for c in self._choices if c.kind == kind) or any(not c.is_out for c in matching)
            if is_wanted and not any(c.is_out for c in matching):
                kept.append(stream)
        for choice in self._choices:
            # No subtitles is fine where there are none.
            if choice not in fitting and not (choice.is_out and not choice.which):
                raise UsageError(
                    f"{uri}: no track fits {choice.text!r}; there {_inventory(choice.kind, streams)}", "tracks"
                )
        return kept


def _parsed(part: str, text: str) -> _Choice:
    match = re.fullmatch(r"(-?)([vasdt])(?::(\d+|[A-Za-z]{2,8}))?", part)
    if match is None:
        raise UsageError(
            f"tracks {text!r}: {part!r} is none of v:1, a:0, a:eng, s, -s, -a:1, -d, -t and the like", "tracks"
        )
    is_out, letter, which = match.groups()
    if letter == "v" and is_out and not which:
        raise UsageError(f"tracks {text!r}: without video there is nothing to denoise", "tracks")
    return _Choice(part, _KINDS[letter], which or "", bool(is_out))


def _kind(stream: av.stream.Stream) -> str:
    is_cover = stream.type == "video" and stream.disposition & av.stream.Disposition.attached_pic
    return "attachment" if is_cover else stream.type


def _inventory(kind: str, streams: Sequence[av.stream.Stream]) -> str:
    languages = [s.metadata.get("language", "no language") for s in streams if _kind(s) == kind]
    if not languages:
        return f"is no {kind} track"
    tracks = ", ".join(f"{n} ({language})" for n, language in enumerate(languages))
    return f"{'is' if len(languages) == 1 else 'are'} {kind} {tracks}"
