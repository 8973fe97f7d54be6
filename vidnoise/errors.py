"""Every exception that vidnoise raises on purpose.

Each class has :class:`VidnoiseError` as a base, so that one ``except`` catches them all, and the
matching builtin where there is one, so that ``except FileNotFoundError`` style code works too.
``exit_code`` is what the command line returns for it.
"""

from __future__ import annotations

from vidnoise.text import safe, shown

_LONGEST = 1500
"""Characters of a message; paths may have a thousand."""


class VidnoiseError(Exception):
    """Root of all errors that vidnoise raises on purpose; its text is one line for the user, without secrets."""

    exit_code = 1
    options: tuple[str, ...] = ()
    """Options that the message names, as arguments."""

    def __init__(self, message: str = "") -> None:
        text = safe(message)
        if len(text) > _LONGEST:  # an option of a megabyte, say
            text = f"{text[: _LONGEST * 2 // 3]} ... {text[-_LONGEST // 3 :]}"
        super().__init__(text)

    @property
    def option(self) -> str | None:
        """The option that is to blame, by its name as an argument; None where none is."""
        return self.options[0] if self.options else None


class UsageError(VidnoiseError, ValueError):
    """An option or argument that makes no sense, alone or beside another one.

    Args:
        message: Names options as Python does (``max_memory``), where it advises a value as in ``device="cpu"``.
        options: Names of the options that it is about. The command line spells them its own way.
    """

    exit_code = 2

    def __init__(self, message: str = "", *options: str) -> None:
        super().__init__(message)
        self.options = options


class SourceError(VidnoiseError):
    """Something went wrong while reading. ``uri`` says from where."""

    exit_code = 3

    def __init__(self, message: str, uri: str = "") -> None:
        super().__init__(message)
        self.uri = shown(uri)


class SourceOpenError(SourceError, OSError):
    """The input is missing, unreadable, or holds no video."""


class DecodeError(SourceError, ValueError):
    """The input opened, but too much of it cannot be decoded."""


class SourceLostError(SourceError, ConnectionError):
    """A live input went away and did not come back."""


class SinkError(VidnoiseError):
    """Something went wrong while writing. ``uri`` says to where."""

    exit_code = 4

    def __init__(self, message: str, uri: str = "") -> None:
        super().__init__(message)
        self.uri = shown(uri)


class SinkOpenError(SinkError, OSError):
    """The output cannot be created: it exists, its folder does not, or it is not writable."""


class EncodeError(SinkError, OSError):
    """Encoding or writing failed after the output was opened (a full disk, say)."""


class ReaderClosedError(SinkError, BrokenPipeError):
    """Whoever read our output has closed it (``| head``). No failure of ours: the command line says nothing."""

    exit_code = 141  # as shells have it: 128 + SIGPIPE


class StalledError(ReaderClosedError):
    """Whoever takes our output takes nothing, and the run is to end; the thread that writes there was left behind."""


class FormatError(VidnoiseError, ValueError):
    """A pixel format, colour space, array kind or size that cannot be handled as asked."""

    exit_code = 5


class SizeChangeError(FormatError):
    """The pictures of an input change their size in the middle, and one output holds one size."""


class ModelError(VidnoiseError):
    """Something is wrong with a model."""

    exit_code = 6


class UnknownModelError(ModelError, LookupError):
    """No model has that name. The message lists those that exist."""


class WeightsError(ModelError, ValueError):
    """A weight file is damaged, or was made for another version."""


class DeviceError(VidnoiseError, RuntimeError):
    """The device does not exist, or ran out of memory. The message names the knob that helps."""

    exit_code = 7


class BackendError(DeviceError):
    """A backend needs something that is not installed, or cannot run as asked. The message says what helps."""
