"""Recipes: a recipe is a function that returns a complete config."""

import importlib.util
from pathlib import Path

from pydantic import ValidationError

from indexlm.config import Recipe, load_recipe
from indexlm.errors import UserError
from indexlm.recipes import tiny

RECIPES = {"tiny": tiny.recipe}


def find(name: str) -> Recipe:
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
            raise UserError(f"{path}: {error}") from error
        if not isinstance(found, Recipe):
            raise UserError(f"{path} has no function recipe() that returns an indexlm Recipe")
        return found
    raise UserError(
        f"no recipe {name!r}; name one of {', '.join(RECIPES)}, a .py file or a saved config.json"
    )
