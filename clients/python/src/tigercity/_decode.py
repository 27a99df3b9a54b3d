"""JSON to dataclasses and back. Ignores fields it does not know, and knows no endpoint."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional, TypeVar

from ._errors import UnexpectedAnswerError

T = TypeVar("T")


Converter = Callable[[Any], Any]


@functools.lru_cache(maxsize=None)
def _fields(kind: type[Any]) -> list[tuple[str, Optional[Converter], bool]]:
    """Name, converter if the value is not to be taken as it is, and whether it is required."""
    hints = typing.get_type_hints(kind)
    absent = dataclasses.MISSING
    return [(f.name, _converter(hints[f.name]), f.default is absent and f.default_factory is absent) for f in dataclasses.fields(kind)]


def decode(kind: type[T], value: object) -> T:
    """`value` as the dataclass `kind`."""
    if not isinstance(value, dict):
        raise UnexpectedAnswerError(f"expected {kind.__name__}, got {type(value).__name__}; is the base URL right?")
    found: dict[str, Any] = {}
    for name, converter, required in _fields(typing.cast(Any, kind)):
        item = value.get(name)
        if item is not None:
            found[name] = converter(item) if converter else item
        elif required:
            raise UnexpectedAnswerError(f"{kind.__name__} came without `{name}`; is the server older than this package?")
    return kind(**found)


def _converter(hint: Any) -> Optional[Converter]:
    if dataclasses.is_dataclass(hint):
        return functools.partial(decode, typing.cast("type[Any]", hint))
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return _list_of(_converter(arguments[0]))
    if origin is typing.Union and type(None) in arguments and len(arguments) == 2:
        return _converter(arguments[0])
    return None


def _list_of(converter: Optional[Converter]) -> Optional[Converter]:
    if converter is None:
        return None

    def convert(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise UnexpectedAnswerError(f"expected an array, got {type(value).__name__}; is the base URL right?")
        return [converter(item) for item in value]

    return convert


def encode(value: Any) -> Any:
    """`value` as JSON: dataclasses as objects, without fields that are None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(item) for f in dataclasses.fields(value) if (item := getattr(value, f.name)) is not None}
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [encode(item) for item in value]
    return value


def body(fields: Mapping[str, Any], stream: bool = False) -> dict[str, Any]:
    """A request's body: fields that are None are left out."""
    given = {name: encode(value) for name, value in fields.items() if value is not None}
    return {**given, "stream": True} if stream else given
