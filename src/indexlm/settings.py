"""Recipes from outside: saved ones, and changes by `section.key=value` from a command line.

Every mistake is a UserError that names the key or the nearest known one, its value and the rule.
"""

import difflib
import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from indexlm.config import AnyRecipe, Continuation, Recipe, TextConfig
from indexlm.errors import UserError

Settings = TypeVar("Settings", bound=BaseModel)

INDECISIVE = {"micro_batch", "save_every", "keep_every"}
"""Settings of a stage that do not change what it computes beyond the last bits of its sums. A run
that is gone on with may change them, and another number of processes needs another micro_batch."""


def decisive(tree: Any) -> Any:
    """Settings, as plain values, without those that decide nothing."""
    if not isinstance(tree, dict):
        return tree
    return {key: decisive(value) for key, value in tree.items() if key not in INDECISIVE}


def with_overrides(recipe: AnyRecipe, overrides: Sequence[str]) -> AnyRecipe:
    """Apply `section.key=value` settings. Raises UserError naming the nearest known key."""
    tree = recipe.model_dump(mode="json")
    for setting in overrides:
        path, separator, value = setting.partition("=")
        if not separator:
            raise UserError(f"{setting!r} is not a setting; write it as section.key=value")
        parsed = _parsed(value)
        if path == "model" and isinstance(parsed, str | float) and "model" in tree:
            parsed = _named_size(str(parsed), tree["model"])
        _assign(tree, type(recipe), path, path.split("."), parsed)
    return _validated(type(recipe), tree, "the command line")


def text_settings(given: Mapping[str, Any], overrides: Sequence[str]) -> TextConfig:
    """The settings of the text room alone, changed by `key=value` or `section.key=value`.

    Raises UserError as `with_overrides` does.
    """
    tree = dict(given)
    for name, field in TextConfig.model_fields.items():
        if _is_section(field.annotation):
            tree.setdefault(name, {})
    for setting in overrides:
        path, separator, value = setting.partition("=")
        if not separator:
            raise UserError(f"{setting!r} is not a setting; write it as section.key=value")
        _assign(tree, TextConfig, path, path.split("."), _parsed(value))
    return _validated(TextConfig, tree, "the command line")


def recipe_from(tree: Any, where: str) -> AnyRecipe:
    """Validate a tree of plain values. Raises UserError with each bad key, its value and rule."""
    if isinstance(tree, dict) and tree.get("kind") == "continuation":
        return _validated(Continuation, tree, where)
    return _validated(Recipe, tree, where)


def load_recipe(path: Path) -> AnyRecipe:
    """Read a saved `config.json`."""
    try:
        return recipe_from(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a saved recipe: {error}") from error


def _validated(kind: type[Settings], tree: Any, where: str) -> Settings:
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: " + "; ".join(_explain(kind, error))) from error


def _named_size(name: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """A named shape with the vocabulary and the window of the recipe."""
    from indexlm.model.sizes import SIZES

    if name not in SIZES:
        raise UserError(
            f"'model' is a section, not a setting, and {name!r} no named size; "
            f"the sizes are {', '.join(SIZES)}"
        )
    kept = {key: recipe[key] for key in ("vocab_size", "context") if key in recipe}
    return SIZES[name].model_dump(mode="json") | kept


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:  # no JSON, or a number of more digits than Python reads
        return value


def _assign(
    tree: dict[str, Any], model: type | None, path: str, keys: list[str], value: Any
) -> None:
    key = keys[0]
    known = list(model.model_fields) if _is_section(model) else list(tree)
    free_keys = model is None  # a mixture: any source may be named
    if key not in known and not free_keys:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
        hint = f"; did you mean {path[: -len('.'.join(keys))]}{near[0]}?" if near else ""
        raise UserError(f"unknown setting {path!r}{hint} (known here: {', '.join(known)})")
    if len(keys) == 1:
        if (
            _is_section(model)
            and _is_section(_field_type(model, key))
            and not isinstance(value, dict)
            and not (value is None and _can_be_none(model, key))
        ):
            raise UserError(f"{path!r} is a section, not a setting; name one of its keys")
        tree[key] = value
        return
    below = tree.get(key)
    kind = _field_type(model, key) if _is_section(model) else None
    if below is None and _is_section(kind):
        raise UserError(
            f"{path!r}: this recipe has no section {key!r}; give it whole, as "
            f"{key}='{{...}}' with {', '.join(kind.model_fields)}"
        )
    if not isinstance(below, dict):
        raise UserError(f"{path!r}: {key!r} is a setting, not a section")
    _assign(below, kind if _is_section(kind) else None, path, keys[1:], value)


def _is_section(model: Any) -> typing.TypeGuard[type[BaseModel]]:
    return isinstance(model, type) and issubclass(model, BaseModel)


def _field_type(model: type[BaseModel], key: str) -> Any:
    """What a field holds; a section that may be left out is that section."""
    annotation = model.model_fields[key].annotation
    sections = [part for part in typing.get_args(annotation) if _is_section(part)]
    return sections[0] if len(sections) == 1 else annotation


def _can_be_none(model: type[BaseModel], key: str) -> bool:
    return type(None) in typing.get_args(model.model_fields[key].annotation)


def _explain(recipe: type[BaseModel], error: ValidationError) -> list[str]:
    lines = []
    for detail in error.errors():
        path = ".".join(str(part) for part in detail["loc"]) or "recipe"
        if detail["type"] == "extra_forbidden":
            known = _keys_at(recipe, [str(part) for part in detail["loc"][:-1]])
            near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1, cutoff=0.4)
            lines.append(f"unknown key {path!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        elif detail["type"] == "missing":
            lines.append(f"{path} is missing")
        elif detail["type"] == "value_error":
            lines.append(f"{path}: {detail['ctx']['error']}")
        elif detail["type"] == "tuple_type":
            written = json.dumps([detail["input"]], ensure_ascii=False, default=str)
            lines.append(
                f"{path}={detail['input']!r}: {detail['msg']}; write a list: {path}='{written}'"
            )
        else:
            lines.append(f"{path}={detail['input']!r}: {detail['msg']}")
    return lines


def _keys_at(model: Any, path: list[str]) -> list[str]:
    for key in path:
        model = _field_type(model, key)
    return list(model.model_fields)
