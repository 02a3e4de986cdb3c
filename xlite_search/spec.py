"""Specs: small frozen models that say how a thing is set, with one dotted name for every setting.

A spec lives beside what it specifies (`Cosine` in `training/optim.py`); `config.py` composes them. This module
knows none of them: it turns dotted names into trees, trees into specs, and pydantic's complaints into sentences.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic._internal._model_construction import ModelMetaclass

from xlite_search.errors import BadInput, did_you_mean

S = TypeVar("S", bound="Spec")
#: letters of a wrong value that its sentence shows
SHOWN = 120


class _Refusing(ModelMetaclass):
    """Has a spec that is built by its name, `AdamW(lr=-1)`, refuse in our words; pydantic's own way in is not changed,
    and tells where below a larger spec it was."""

    if not TYPE_CHECKING:

        def __call__(self, *values: object, **settings: object) -> object:
            if values:
                first = next(iter(self.model_fields), "name")
                raise BadInput(f"{self.__name__}: settings are given by name, such as {self.__name__}({first}=...)")
            try:
                return super().__call__(**settings)
            except ValidationError as error:
                raise BadInput(f"{self.__name__}: {_sentence(self, error)}") from None


class Spec(BaseModel, metaclass=_Refusing):
    """Base of every spec: frozen, no unknown fields, equal by value; what is wrong with it is one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    #: names that people expect among a spec's settings, and why there is no such thing
    missing: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _as_they_are(cls, given: Any) -> Any:
        """numpy's numbers as Python's. True is no number: pydantic would take it for 1, but not the word."""
        if not isinstance(given, Mapping):
            return given
        found = {name: unboxed(value) for name, value in given.items()}
        for name, value in found.items():
            if isinstance(value, bool) and name in cls.model_fields:
                kinds = set(_kinds(cls.model_fields[name].annotation))
                if kinds & {int, float} and bool not in kinds:
                    found[name] = str(value).lower()
        return found

    def with_settings(self: S, settings: Mapping[str, object]) -> S:
        """A copy with dotted settings changed: `{"kd.tau": 4.0, "loss": "weighted_bce"}`.

        Raises:
            BadInput: a name is unknown (with a suggestion) or a value is out of range.
        """
        known = _known(type(self))
        tree: dict[str, Any] = self.model_dump()
        for name in sorted(settings, key=lambda n: n.count(".")):
            if name not in known:
                raise BadInput(unknown(type(self), name))
            _assign(tree, name.split("."), settings[name])
        return parse(type(self), tree)


def unboxed(value: Any) -> Any:
    """A number of numpy's, or of torch's, as Python's; anything else as it is."""
    return value.item() if hasattr(value, "dtype") and hasattr(value, "item") and value.shape == () else value


def kind_of(value: object) -> str:
    """What a value is, for a sentence: None, an int, the class ASHA."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def named(value: Any) -> Any:
    """The short form of a choice: `"bce"` for `{"name": "bce"}`. For a BeforeValidator of a discriminated union."""
    return {"name": value} if isinstance(value, str) else value


def parse(spec: type[S], tree: Mapping[str, object], where: str = "", context: object = None) -> S:
    """The spec that a tree of plain values describes; `where` starts the sentence if it describes none. Validators may
    ask for `context`."""
    try:
        return spec.model_validate(tree, context=context)
    except ValidationError as error:
        raise BadInput(where + _sentence(spec, error)) from None


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted names; lists and scalars are leaves."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def setting_names(spec: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted name that a spec understands, whichever choice of its unions is taken."""
    for name, field in spec.model_fields.items():
        yield prefix + name
        for choice in specs_in(field.annotation):
            yield from setting_names(choice, f"{prefix}{name}.")


@cache
def _known(spec: type[BaseModel]) -> frozenset[str]:
    return frozenset(setting_names(spec))


def choice_names(spec: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted name that says which choice of a union is taken: `loss.name`; not a mere `data.name`."""
    for name, field in spec.model_fields.items():
        if prefix and name == "name" and get_origin(field.annotation) is Literal:
            yield prefix + name
        for choice in specs_in(field.annotation):
            yield from choice_names(choice, f"{prefix}{name}.")


def types_of(spec: type[BaseModel], name: str) -> Iterator[Any]:
    """The types that a setting has, by its dotted name, in whichever choices of the unions above it."""
    first, _, rest = name.partition(".")
    if first in spec.model_fields:
        annotation = spec.model_fields[first].annotation
        if not rest:
            yield annotation
        else:
            for choice in specs_in(annotation):
                yield from types_of(choice, rest)


def takes_list(spec: type[BaseModel], name: str) -> bool:
    """Whether a setting's single value is a list, `data.split.ratios`, and nothing else: several lists are a sweep."""
    found = {get_origin(kind) or kind for annotation in types_of(spec, name) for kind in _alternatives(annotation)}
    return bool(found) and found <= {tuple, list}


def _alternatives(annotation: object) -> Iterator[object]:
    """The types of a union, None aside, without what is said of them."""
    if hasattr(annotation, "__metadata__"):
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for each in get_args(annotation):
            yield from _alternatives(each) if each is not types.NoneType else ()
    else:
        yield annotation


def unknown(spec: type[BaseModel], name: str, *more: str) -> str:
    """The sentence about a name that is none of a spec's settings nor of `more`."""
    reasons = dict(_missing(spec))
    why = f": {reasons[name]}" if name in reasons else did_you_mean(name, {*setting_names(spec), *more})
    return f"unknown setting '{name}'{why}"


def _missing(spec: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    yield from ((prefix + name, why) for name, why in getattr(spec, "missing", {}).items())
    for name, field in spec.model_fields.items():
        for choice in specs_in(field.annotation):
            yield from _missing(choice, f"{prefix}{name}.")


def specs_in(annotation: object) -> Iterator[type[BaseModel]]:
    """The specs that an annotation holds, the choices of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from specs_in(argument)


def _kinds(annotation: object) -> Iterator[object]:
    """The types that a type is made of: int and None for `int | None`."""
    yield annotation
    for argument in get_args(annotation):
        yield from _kinds(argument)


def _choices(spec: type[BaseModel], name: str) -> list[str]:
    """The names that a setting's union has, `["light", "medium", "strong"]`."""
    first, _, rest = name.partition(".")
    below = list(specs_in(spec.model_fields[first].annotation)) if first in spec.model_fields else []
    if rest:
        return list(dict.fromkeys(choice for inner in below for choice in _choices(inner, rest)))
    return [str(inner.model_fields["name"].default) for inner in below if "name" in inner.model_fields]


def _assign(tree: dict[str, Any], parts: list[str], value: object) -> None:
    for part in parts[:-1]:
        child = tree.get(part)
        if isinstance(child, str):
            child = {"name": child}
        tree[part] = dict(child) if child else {}
        tree = tree[part]
    tree[parts[-1]] = value


def _sentence(spec: type[BaseModel], error: ValidationError) -> str:
    """pydantic's first complaint, in our words and with our dotted names."""
    first = error.errors()[0]
    known = set(setting_names(spec))
    name, tagged = "", ""
    for part in first["loc"]:
        if name and name != tagged and part in _choices(spec, name):
            tagged = name  # which choice it is, though a setting may be called so too: folds of folds
            continue
        longer = f"{name}.{part}" if name else str(part)
        if longer in known or (first["type"] == "extra_forbidden" and part == first["loc"][-1]):
            name = longer
    context = first.get("ctx", {})
    if first["type"] == "extra_forbidden" and name in known:
        return f"'{name}' is not a setting of {name.rpartition('.')[0]} = '{first['loc'][-2]}'"
    if first["type"] == "extra_forbidden":
        return unknown(spec, name)
    if first["type"] == "union_tag_invalid":
        choices = [choice.strip(" '") for choice in str(context["expected_tags"]).split(",")]
        tag = str(context["tag"])
        return (
            f"{name} = '{_clipped(tag)}' is not known; expected one of {', '.join(choices)}{did_you_mean(tag, choices)}"
        )
    shown = f"{name} = {_clipped(repr(first['input']))}: " if name else ""
    if first["type"] == "union_tag_not_found":
        return f"{shown}no name; set {name} itself too, to one of {', '.join(_choices(spec, name))}"
    if first["type"] == "missing":
        missing = name.endswith(str(first["loc"][-1]))
        return f"{name} is missing" if missing else f"{name}: it has too few values"
    choices = _choices(spec, name) if name and first["type"].startswith("model") else []
    if choices:
        return f"{shown}expected one of {', '.join(choices)}, with settings of its own or without"
    return f"{shown}{_reason(first['type'], context, first['msg'])}"


#: what pydantic checks, and how a person would say it; what is not here is said as in `_reason`
REASONS = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "bool": "a valid boolean, true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "settings by name, such as {name: ...}",
    "model": "settings by name, such as {name: ...}",
}
#: ... and what it says as a person would
PLAIN = ("greater_than", "less_than", "literal_error", "finite_number", "multiple_of")


def _reason(kind: str, context: Mapping[str, Any], message: str) -> str:
    if "error" in context:
        return str(context["error"])
    if kind.startswith(PLAIN):
        return message[0].lower() + message[1:]
    if kind in ("too_long", "too_short"):
        most, least = context.get("max_length"), context.get("min_length")
        return f"input should be a list of {f'at least {least}' if most is None else f'at most {most}'}"
    said = REASONS.get(kind.partition("_")[0])
    return f"input should be {said}" if said else "this setting takes no such value"


def _clipped(text: str) -> str:
    """A value as it is shown in a sentence, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
