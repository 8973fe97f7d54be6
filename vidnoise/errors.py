"""The exceptions of vidnoise.

All derive from :class:`VidnoiseError`, so that one ``except`` catches them all, and from the matching builtin
exception, so that ``except FileNotFoundError`` style code works too. ``exit_code`` is the exit status of the command
line.
"""

from __future__ import annotations

from vidnoise.text import safe, shown

_LONGEST = 1500
"""Maximum length of a message; paths may have a thousand characters."""


class VidnoiseError(Exception):
    """Base class of all errors of vidnoise; the message is one line for the user, without secrets."""

    exit_code = 1
    options: tuple[str, ...] = ()
    """Options that the message names, by their names as arguments."""

    def __init__(self, message: str = "") -> None:
        text = safe(message)
        if len(text) > _LONGEST:  # such as an option of a megabyte
            text = f"{text[: _LONGEST * 2 // 3]} ... {text[-_LONGEST // 3 :]}"
        super().__init__(text)

    @property
    def option(self) -> str | None:
        """Name of the offending option as an argument; None if there is none."""
        return self.options[0] if self.options else None


class UsageError(VidnoiseError, ValueError):
    """An invalid option or argument, alone or in combination with others.

    Args:
        message: Names options as Python does: ``max_memory``, or ``device="cpu"`` to suggest a value.
        options: Names of the options concerned, which the command line replaces by its own spelling.
    """

    exit_code = 2

    def __init__(self, message: str = "", *options: str) -> None:
        super().__init__(message)
        self.options = options


class SourceError(VidnoiseError):
    """An error while reading from ``uri``."""

    exit_code = 3

    def __init__(self, message: str, uri: str = "") -> None:
        super().__init__(message)
        self.uri = shown(uri)


class SourceOpenError(SourceError, OSError):
    """The input is missing, unreadable, or contains no video."""


class DecodeError(SourceError, ValueError):
    """The input opened, but too much of it cannot be decoded."""


class SourceLostError(SourceError, ConnectionError):
    """A live input went away and did not come back."""


class SinkError(VidnoiseError):
    """An error while writing to ``uri``."""

    exit_code = 4

    def __init__(self, message: str, uri: str = "") -> None:
        super().__init__(message)
        self.uri = shown(uri)


class SinkOpenError(SinkError, OSError):
    """The output cannot be created: it exists, its folder does not, or it is not writable."""


class EncodeError(SinkError, OSError):
    """Encoding or writing failed after the output was opened, for example because the disk is full."""


class ReaderClosedError(SinkError, BrokenPipeError):
    """The reader of the output has closed it (``| head``), which is not a failure: the command line is silent."""

    exit_code = 141  # by the convention of shells: 128 + SIGPIPE


class StalledError(ReaderClosedError):
    """The reader of the output stalled while the run was ending, and the writing thread was abandoned."""


class FormatError(VidnoiseError, ValueError):
    """An unsupported pixel format, colour space, kind of array, or size."""

    exit_code = 5


class SizeChangeError(FormatError):
    """The pictures of an input change size midway, while one output has one size."""


class ModelError(VidnoiseError):
    """Base class of errors of models."""

    exit_code = 6


class UnknownModelError(ModelError, LookupError):
    """There is no model of this name; the message lists the available ones."""


class WeightsError(ModelError, ValueError):
    """A weight file is damaged, or was made for another version."""


class DeviceError(VidnoiseError, RuntimeError):
    """The device does not exist or ran out of memory; the message names an option that helps."""

    exit_code = 7


class BackendError(DeviceError):
    """A backend is not installed, or cannot run as requested; the message says what helps."""


class DependencyError(VidnoiseError, ImportError):
    """A library that vidnoise needs is missing or cannot be loaded; the message says what to install."""
