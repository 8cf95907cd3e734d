"""Decoded JSON -> lsprotocol's types, for the messages that editors really send. The only place that reads leniently.

An unknown enum value is left out of a list, absent where it is optional, and passed on as it is where it is required.
Null means "absent" wherever a value is optional, `params` may be missing, and an editor that counts no versions may
leave them out. What `initialize` declares is read field by field: a capability of a wrong form is absent.
Anything else of a wrong type is an error: a text that is null must not be read as the text "None".

lsprotocol refuses each of these, and cattrs turns values of wrong types into texts and numbers. Upstream reports:
unknown enum values: openlawlibrary/pygls#438; the others: none that we know of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as AbstractSequence
from enum import Enum
from functools import partial
from typing import Any, Union, get_args, get_origin

import attrs
from cattrs import ClassValidationError, Converter, override, transform_error
from cattrs.gen import make_dict_structure_fn
from lsprotocol import converters, types

# Required by the protocol; read as these where an editor leaves them out.
_STAND_INS: dict[type, dict[str, Any]] = {
    types.InitializeParams: {"capabilities": {}},
    types.TextDocumentItem: {"version": 0, "languageId": ""},
    types.NotebookDocument: {"version": 0, "notebookType": ""},
    types.VersionedNotebookDocumentIdentifier: {"version": 0},
    types.DidOpenNotebookDocumentParams: {"cellTextDocuments": []},
    types.DidCloseNotebookDocumentParams: {"cellTextDocuments": []},
    types.DidChangeConfigurationParams: {"settings": None},
    types.WorkspaceFoldersChangeEvent: {"added": [], "removed": []},
    types.WorkspaceFolder: {"name": ""},
    types.CodeActionContext: {"diagnostics": []},
}
_CONTENT_CHANGE = Union[types.TextDocumentContentChangePartial, types.TextDocumentContentChangeWholeDocument]  # noqa: UP007
_MOST_REASONS = 3

Hook = Callable[[Any, Any], Any]


def lenient_converter() -> Converter:
    """Returns a converter for every message of the protocol."""
    converter = converters.get_converter()
    for kind in (str, int, float, bool):
        converter.register_structure_hook(kind, _primitive)
    converter.register_structure_hook_factory(_is_optional_enum, _optional_enum)
    converter.register_structure_hook_factory(_is_sequence, partial(_sequence, converter=converter))
    converter.register_structure_hook_factory(attrs.has, partial(_object, converter=converter))
    converter.register_structure_hook(types.VersionedTextDocumentIdentifier, _versioned)
    converter.register_structure_hook(_CONTENT_CHANGE, _content_change(converter))
    return converter


def why_unreadable(error: Exception) -> str:
    """Returns which fields of a message cannot be read, without their values."""
    if not isinstance(error, ClassValidationError):
        return type(error).__name__
    reasons = transform_error(error, format_exception=_wanted)
    return "; ".join(reason.replace("$.params.", "") for reason in reasons[:_MOST_REASONS])


def _wanted(cause: BaseException, kind: type | None) -> str:
    if isinstance(cause, KeyError):
        return "missing"
    return f"must be {getattr(kind, '__name__', 'of another form')}"


def _primitive(value: Any, kind: type) -> Any:
    """Reads a text, number or truth value, or an enum of those: cattrs reads such an enum by its value's type."""
    if not issubclass(kind, Enum):
        return _exact(value, kind)
    if (member := _known(value, kind)) is not None:
        return member
    return _exact(value, int if issubclass(kind, int) else str)


def _exact(value: Any, kind: type) -> Any:
    """Returns a JSON value of just that type; a whole number may be written with a fraction of zero."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{kind.__name__} expected")
    return value


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _is_optional_enum(kind: Any) -> bool:
    return get_origin(kind) is Union and type(None) in get_args(kind) and _enum_in(kind) is not None


def _enum_in(kind: Any) -> Any:
    """Returns the enum that a union is of, apart from null; None for any other."""
    rest = [one for one in get_args(kind) if one is not type(None)]
    return rest[0] if len(rest) == 1 and _is_enum(rest[0]) else None


def _known(value: Any, kind: type[Enum]) -> Enum | None:
    # In Python `True == 1`.
    return next((member for member in kind if type(member.value) is type(value) and member.value == value), None)


def _optional_enum(kind: Any) -> Hook:
    return lambda value, _: _known(value, _enum_in(kind))


def _is_sequence(kind: Any) -> bool:
    return get_origin(kind) is AbstractSequence


def _sequence(kind: Any, converter: Converter) -> Hook:
    (item,) = get_args(kind)

    def read(value: Any, _: Any) -> list[Any]:
        # A text or an object can be iterated over too.
        if not isinstance(value, list):
            raise TypeError("list expected")
        if _is_enum(item):
            return [member for one in value if (member := _known(one, item)) is not None]
        return inner(value, list[item])

    inner = converter.get_structure_hook(list[item])
    return read


def _object(kind: type, converter: Converter) -> Hook:
    """Reads an object of the protocol; null and a missing value are the same where the value is optional."""
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(kind)
    names = {field.name: _wire_name(field.name) for field in fields}
    overrides = {name: override(rename=wire) for name, wire in names.items()}
    inner: Hook = make_dict_structure_fn(kind, converter, **overrides)  # pyright: ignore[reportArgumentType]
    optional = frozenset(names[field.name] for field in fields if field.default is not attrs.NOTHING)
    stand_ins = _STAND_INS.get(kind, {})
    params = next((field.type for field in fields if field.name == "params"), None)
    if attrs.has(params) and "params" not in optional:  # pyright: ignore[reportArgumentType]
        stand_ins = {"params": {}}
    declares = kind is types.InitializeParams or "Client" in kind.__name__ or kind.__name__.endswith("Capabilities")

    def read(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError("object expected")
        given = {name: one for name, one in value.items() if one is not None or name not in optional}
        for name, stand_in in stand_ins.items():
            if given.get(name) is None or (name == "params" and given[name] == []):
                given[name] = stand_in
        if not declares:
            return inner(given, kind)
        return _without_faults(given)

    def _without_faults(given: dict[str, Any]) -> Any:
        try:
            return inner(given, kind)
        except ClassValidationError as error:
            faults = {names[note.name] for _, note in error.group_exceptions()[0] if note.name in names}
            if not faults or not faults <= optional:
                raise
            return inner({name: one for name, one in given.items() if name not in faults}, kind)

    return read


def _wire_name(name: str) -> str:
    """Returns a field's name in JSON, as lsprotocol spells it."""
    first, *others = name.removesuffix("_").split("_")
    return first + "".join(part.title() for part in others)


def _versioned(value: Any, _: Any) -> types.VersionedTextDocumentIdentifier:
    """Reads the document of a change; the version of an editor that counts none is None."""
    if not isinstance(value, Mapping):
        raise TypeError("object expected")
    version = value.get("version")
    given = 0 if version is None else _exact(version, int)
    identifier = types.VersionedTextDocumentIdentifier(uri=_exact(value["uri"], str), version=given)
    if version is None:
        # Past the validator, which refuses null.
        object.__setattr__(identifier, "version", None)
    return identifier


def _content_change(converter: Converter) -> Hook:
    def read(value: Any, _: Any) -> types.TextDocumentContentChangeEvent:
        if not isinstance(value, Mapping):
            raise TypeError("object expected")
        if value.get("range") is None:
            return converter.structure(value, types.TextDocumentContentChangeWholeDocument)
        # Deprecated, and clients count it differently.
        given = {name: one for name, one in value.items() if name != "rangeLength"}
        return converter.structure(given, types.TextDocumentContentChangePartial)

    return read
