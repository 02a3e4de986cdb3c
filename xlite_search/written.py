"""Values as people write them after `--set` and in `best.yaml`: JSON's numbers, true, false, null; the rest is text.

YAML's brackets are kept, `[1, 4]` and `{name: focal, gamma: 2}`, its guesses are not: to YAML 1.1 010 is 8, 1:30 is 90,
2024_01 is 202401 and a commit such as 804e12 is infinite. What is text is read by the setting's own type. Where a
setting takes names alone a number is text too: `data.name=202401`.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from xlite_search.errors import BadInput
from xlite_search.spec import types_of

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
WORDS = {"true": True, "false": False, "null": None}
#: how a value begins that is more than a plain word
OPENING = ("[", "{", "'", '"')


def value(text: str, spec: type[BaseModel], name: str, where: str) -> Any:
    """The value of a setting of `spec` by its dotted name; `where` begins the sentence if it is none.

    Raises:
        BadInput: it is empty, or a bracket or quote does not end.
    """
    text = text.strip()
    if not text:
        raise BadInput(f"{where}: there is no value; say null if you mean none")
    if not text.startswith(OPENING):
        return _scalar(text, _is_text(spec, name))
    try:
        return _plain(yaml.compose(text, yaml.SafeLoader), spec, name)
    except (yaml.YAMLError, RecursionError):
        raise BadInput(f"{where}: the value is not a number, word or list; quote it for the shell?") from None


def document(text: str, spec: type[BaseModel]) -> Any:
    """What a YAML document says, read by the types of `spec`. Raises yaml.YAMLError."""
    try:
        return _plain(yaml.compose(text, yaml.SafeLoader), spec, "")
    except RecursionError:
        raise yaml.YAMLError("it holds itself") from None


def dumped(tree: object) -> str:
    """YAML that any reader takes as `document` does: text that looks like a number is quoted."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    def text(self, given: str) -> yaml.ScalarNode:
        quoted = not isinstance(_scalar(given, False), str)
        return self.represent_scalar("tag:yaml.org,2002:str", given, style='"' if quoted else None)


_Dumper.add_representer(str, _Dumper.text)


def _plain(node: yaml.Node | None, spec: type[BaseModel], name: str) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else _scalar(node.value, _is_text(spec, name))
    if isinstance(node, yaml.SequenceNode):
        return [_plain(each, spec, name) for each in node.value]
    found: dict[str, Any] = {}
    for key, below in node.value if isinstance(node, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode) or key.value in found:
            raise yaml.YAMLError("a name that is none, or is there twice")
        found[key.value] = _plain(below, spec, f"{name}.{key.value}" if name else key.value)
    return found if isinstance(node, yaml.MappingNode) else None


def _scalar(text: str, is_text: bool) -> Any:
    if text == "null":
        return None
    if is_text:
        return text
    if text in WORDS:
        return WORDS[text]
    try:
        return json.loads(text) if NUMBER.fullmatch(text) else text
    except ValueError:  # more digits than Python takes
        return text


def _is_text(spec: type[BaseModel], name: str) -> bool:
    """Whether a setting takes text and no number: a name, a path, a choice by its name."""
    kinds = {kind for annotation in types_of(spec, name) for kind in _kinds(annotation)} - {types.NoneType}
    return bool(kinds) and kinds <= {str}


def _kinds(annotation: object) -> Iterator[object]:
    """What the scalars of an annotation are; a spec is named by text."""
    if get_origin(annotation) is Literal:
        yield from (type(choice) for choice in get_args(annotation))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield str
    elif get_origin(annotation) in (Union, types.UnionType) or hasattr(annotation, "__metadata__"):
        inner = get_args(annotation)[:1] if hasattr(annotation, "__metadata__") else get_args(annotation)
        for each in inner:
            yield from _kinds(each)
    elif get_args(annotation):
        for each in get_args(annotation):
            yield from _kinds(each) if each is not ... else ()
    else:
        yield annotation
