"""Options that are declared once and validate themselves.

An option is a field of a frozen dataclass, with its name, type and default; an :class:`Option` with everything else is
in the field's metadata. The keyword functions of the library, the command line, and the comparison of settings when
resuming all read these fields.
"""

from __future__ import annotations

import difflib
import inspect
import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from vidnoise.errors import UsageError
from vidnoise.option_groups import ADVANCED

if TYPE_CHECKING:
    from typing_extensions import Self

Function = TypeVar("Function", bound=Callable[..., Any])

_KEY = "option"


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option's documentation, range and command-line form: everything but its name, type and default."""

    doc: str
    """Documentation for users of the library: meaning, unit, range."""
    help: str
    """Help text of the command line; the default is added if the text names none."""
    flag: str = ""
    """Command-line spelling, if it is not ``--`` and the name with hyphens."""
    metavar: str | None = None
    """Placeholder for the value in the command line's help."""
    least: float | None = None
    """Inclusive lower limit."""
    most: float | None = None
    """Inclusive upper limit."""
    above: float | None = None
    """Exclusive lower limit."""
    unit: str = ""
    """Unit of the range, for messages."""
    must_be: str = ""
    """The range in words, if "between ``least`` and ``most``" would be unclear."""
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """Words that are accepted instead of a number."""
    by_place: bool = False
    """Whether an array with a number for each pixel is accepted, too."""
    group: str = ADVANCED
    """Heading in the command line's help, one of :data:`vidnoise.option_groups.GROUPS`."""
    may_change: bool = False
    """Whether a resumed run may use another value, because it affects neither the pictures nor the file."""

    def check(self, name: str, value: Any) -> None:
        """Validate a value.

        Raises:
            UsageError: ``value`` is invalid for the option ``name``.
        """
        if isinstance(value, str) and value in self.words:
            return
        if self.by_place and getattr(value, "ndim", 0):
            self._check_array(name, value)
            return
        fits = value in self.choices if self.choices else self._is_in_range(value)
        if not fits:
            raise UsageError(f"{name} must be {self.range_text}, got {_shown(value)}", name)

    def _check_array(self, name: str, values: Any) -> None:
        if 0 in values.shape:
            raise UsageError(f"{name} is an empty array", name)
        least, most = float(values.min()), float(values.max())
        if not (self._is_in_range(least) and self._is_in_range(most)):
            raise UsageError(f"{name} must be {self.range_text}, got {least:g} to {most:g}", name)

    def _is_in_range(self, value: Any) -> bool:
        if self.least is None and self.most is None and self.above is None:
            return True
        try:
            return bool(
                math.isfinite(value)
                and (self.least is None or value >= self.least)
                and (self.most is None or value <= self.most)
                and (self.above is None or value > self.above)
            )
        except (TypeError, ValueError):  # not a number
            return False
        except OverflowError:  # an integer beyond the range of floats
            return False

    @property
    def range_text(self) -> str:
        """Describe the accepted values in words."""
        if self.must_be:
            return self.must_be
        if self.choices:
            return _listed(self.choices)
        if self.above is not None:
            text = f"more than {self.above:g}{self.unit}"
        elif self.most is None:
            text = f"at least {self.least:g}{self.unit}"
        else:
            text = f"between {self.least:g} and {self.most:g}{self.unit}"
        return f"{', '.join(self.words)}, or {text}" if self.words else text


def option(default: Any, doc: str, *, help: str, **about: Any) -> Any:
    """Make a dataclass field with its default and its :class:`Option`."""
    return field(default=default, metadata={_KEY: Option(doc=" ".join(doc.split()), help=help, **about)})


def again(kind: type[Checked], name: str, default: Any) -> Any:
    """Make a copy of the field ``name`` of ``kind``, with another default."""
    return field(default=default, metadata=named_fields(kind)[name].metadata)


def about(of: Field[Any]) -> Option:
    """Return the :class:`Option` of a field."""
    return of.metadata[_KEY]


def named_fields(kind: type[Checked]) -> dict[str, Field[Any]]:
    """Return the fields of ``kind`` by name."""
    return {each.name: each for each in fields(kind)}


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Base class of validated options.

    Raises:
        UsageError: A value is out of range. The error's ``option`` is the name of the option.
    """

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None or each.default is not None:
                about(each).check(each.name, value)

    @classmethod
    def of(cls, function: str, keywords: Mapping[str, Any]) -> Self:
        """Make options from the keyword arguments of a function.

        Args:
            function: Name of the function, for messages.
            keywords: The keyword arguments.

        Raises:
            TypeError: There is no option of this name.
            UsageError: A value is out of range.
        """
        names = named_fields(cls)
        for name in keywords:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f". Did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{hint}")
        return cls(**keywords)

    def keywords(self, kind: type[Checked]) -> dict[str, Any]:
        """Return the values, by name, of the options that ``kind`` has as well."""
        return {name: getattr(self, name) for name in named_fields(kind)}


def takes(kind: type[Checked]) -> Callable[[Function], Function]:
    """Decorate a function or class to show the options of ``kind`` in its signature and documentation.

    Type checkers see them through its annotation: ``Unpack`` of the typed dictionary that corresponds to ``kind``.
    """

    def shown(function: Function) -> Function:
        given_to: Any = function
        called: Any = given_to.__init__ if inspect.isclass(given_to) else given_to
        plain = inspect.signature(called)
        own = [p for p in plain.parameters.values() if p.kind is not p.VAR_KEYWORD]
        given = {p.name for p in own}
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type)
            for name, each in named_fields(kind).items() if name not in given
        ]  # fmt: skip
        called.__signature__ = plain.replace(parameters=[*own, *more])
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\nKeyword Args:\n{documentation(kind)}"
        return function

    return shown


def documentation(kind: type[Checked]) -> str:
    """Return the documentation of all options of ``kind``, one paragraph each."""
    texts = [f"{name}: {about(each).doc}" for name, each in named_fields(kind).items()]
    return "\n".join(textwrap.fill(t, 116, initial_indent=" " * 4, subsequent_indent=" " * 8) for t in texts)


def _listed(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)
