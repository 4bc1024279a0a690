"""YAML text to plain values that remember where they stood.

Scalars are read by YAML 1.2's core schema, not 1.1's: ``on`` is text and ``10:20:30`` is not a number in base 60, so that a
MAC address or an interface called ``no`` means itself. Invariant: every path of ``value`` has a place in ``places``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from appliance.config.faults import Fault

NodePath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader with the core schema's scalars."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes what only the core schema would take for something other than text (``1e5``)."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    """Decimal also with leading zeros, as the core schema has it; SafeLoader's own would take those for octal."""
    return int(node.value, 16 if node.value.startswith("0x") else 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


@dataclass
class Document:
    """``value``: dict, tuple (for a list), str, int, float, bool or None. ``places``: (line, column) from 1, by path.

    ``texts``: scalars as they were written, by path.
    """

    file: str
    value: Any = None
    places: dict[NodePath, tuple[int, int]] = field(default_factory=dict)
    keys: dict[NodePath, tuple[int, int]] = field(default_factory=dict)
    texts: dict[NodePath, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, path: NodePath, text: str, *, key: bool = False) -> Fault:
        """A fault at the value (or with ``key`` at its key); where the path is not in the file, at its nearest parent."""
        places = self.keys if key and path in self.keys else self.places
        while path and path not in places:
            path = path[:-1]
        return Fault(self.file, *places.get(path, (1, 1)), text)


def to_text(value: Any) -> str:
    """YAML that ``parse`` (and any other reader) takes for the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def _place(mark: yaml.Mark | None) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def parse(text: str, file: str) -> Document:
    """Never raises: what is wrong with the YAML itself is in ``faults``, and ``value`` is then what could be read."""
    document = Document(file)
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            document.value = _build(document, loader, node, ())
    except yaml.MarkedYAMLError as error:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        document.faults.append(Fault(file, *_place(error.problem_mark), f"not YAML: {what}"))
    except yaml.YAMLError as error:
        document.faults.append(Fault(file, 1, 1, f"not YAML: {str(error).splitlines()[0]}"))
    finally:
        if loader is not None:
            loader.dispose()
    return document


def _build(document: Document, loader: _Loader, node: yaml.Node, path: NodePath) -> Any:
    document.places[path] = _place(node.start_mark)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            here = (*path, key)
            if key in mapping:
                line, _ = document.keys[here]
                document.faults.append(
                    Fault(document.file, *_place(key_node.start_mark), f"{key!r} is here twice (see line {line})")
                )
                continue
            document.keys[here] = _place(key_node.start_mark)
            mapping[key] = _build(document, loader, value_node, here)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return tuple(_build(document, loader, item, (*path, index)) for index, item in enumerate(node.value))
    document.texts[path] = node.value
    try:
        return loader.construct_object(node)
    except ValueError as error:
        document.faults.append(Fault(document.file, *document.places[path], f"{node.value!r}: {error}"))
        return None
