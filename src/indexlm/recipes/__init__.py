"""Recipes: a recipe is a function that returns a complete config."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from indexlm.config import AnyRecipe, Continuation, Recipe
from indexlm.errors import UserError
from indexlm.recipes import long32k, lora, tiny
from indexlm.settings import load_recipe

RECIPES: dict[str, Callable[[], AnyRecipe]] = {
    "tiny": tiny.recipe,
    "lora": lora.recipe,
    "long32k": long32k.recipe,
    "long-tiny": long32k.tiny,
}


def find(name: str) -> AnyRecipe:
    """A recipe by name, from the `recipe()` of a .py file, or from a saved config.json."""
    if name in RECIPES:
        return RECIPES[name]()
    path = Path(name)
    if path.suffix == ".json":
        if not path.is_file():
            raise UserError(
                f"{path} does not exist; a run folder has a config.json once it started"
            )
        return load_recipe(path)
    if path.suffix == ".py" and path.is_file():
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            made = getattr(module, "recipe", None)
            found = made() if callable(made) else None
        except ValidationError as error:
            wrong = [
                f"{'.'.join(map(str, each['loc']))}={each['input']!r}: {each['msg']}"
                for each in error.errors()
            ]
            raise UserError(f"{path}, {error.title}: {'; '.join(wrong)}") from error
        if not isinstance(found, Recipe | Continuation):
            raise UserError(
                f"{path} has no function recipe() that returns an indexlm Recipe or Continuation"
            )
        return found
    raise UserError(
        f"no recipe {name!r}; name one of {', '.join(RECIPES)}, a .py file or a saved config.json"
    )
