"""Which room may use which, read from the sources: the tree stays the data flow it looks like."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import indexlm

PACKAGE = Path(indexlm.__file__).parent

DOORS = {"cli", "pipeline", "preflight", "plan", "stages"}
"""They put rooms together; no room knows them."""

SHARED = {"config", "errors", "records", "runtime", "settings"}
"""Any room but `model` may use these."""

ROOMS: dict[str, set[str]] = {
    "text": set(),
    "tokens": {"text"},
    "feed": {"tokens"},
    "model": set(),
    "train": {"feed", "model", "tokens"},
    "evals": {"model", "tokens"},
    "export": {"model", "tokens"},
    "roleplay": {"model", "tokens"},
    # A model folder is opened by the room that writes it.
    "serve": {"export", "model", "tokens"},
    # The page is at the end of the flow: it shows kept documents and computed chances.
    "report": {"evals", "text"},
    "recipes": {"model"},
    # Small experiments from a made-up world to a page: the whole flow, used and not copied.
    "lab": {"evals", "feed", "model", "report", "text", "tokens", "train"},
}
"""Room -> rooms it may use beside itself."""

SHARED_USES: dict[str, set[str]] = {
    "config": {"model"},
    "settings": {"config", "errors", "model"},
    "errors": set(),
    "records": {"errors"},
    "runtime": {"errors", "records"},
}

OPTIONAL = {"gguf", "huggingface_hub", "ray", "tokenizers", "torchao", "xllamacpp"}
"""They come with an extra of their own; what does not need them must run without."""

HEAVY = {"daft", "matplotlib", "numpy", "pyarrow", "safetensors", "sentencepiece", "torch"}
HEAVY |= OPTIONAL


def imported(source: str) -> Iterator[str]:
    """What a source imports of ours, e.g. `model.config`, wherever in it the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            if node.module == "indexlm":
                yield from (alias.name for alias in node.names if not alias.name.startswith("__"))
            elif node.module is not None and node.module.startswith("indexlm."):
                yield node.module.removeprefix("indexlm.")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name != "indexlm", f"line {node.lineno}: name what is imported"
                if alias.name.startswith("indexlm."):
                    yield alias.name.removeprefix("indexlm.")


def violations(place: str, source: str) -> list[str]:
    """Imports that a source may not have; `place` is its path in the package, with slashes."""
    home = place.removesuffix(".py").split("/")[0]
    if home in DOORS or home == "__init__":
        return []
    found = []
    for module in imported(source):
        used = module.split(".")[0]
        if home == "model":
            allowed = module in {"errors"} or used == "model"
        elif home in SHARED:
            allowed = used in SHARED_USES[home]
        else:
            allowed = used == home or used in SHARED or used in ROOMS[home]
        if not allowed:
            found.append(f"{place} imports {module}")
    return found


def sources() -> dict[str, str]:
    return {
        path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def test_every_file_belongs_to_a_room_a_door_or_the_shared_ones() -> None:
    homes = {place.removesuffix(".py").split("/")[0] for place in sources()}
    assert homes == {*ROOMS, *DOORS, *SHARED, "__init__"}


def test_rooms_use_only_what_comes_before_them() -> None:
    assert [line for place, text in sources().items() for line in violations(place, text)] == []


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("text/made_up.py", "from indexlm.tokens.tokenizer import Tokenizer"),
        ("serve/made_up.py", "def load():\n    from indexlm.train import checkpoint"),
        ("feed/made_up.py", "if TYPE_CHECKING:\n    from indexlm.train.loop import Stage"),
        ("evals/made_up.py", "class A:\n    def f(self):\n        import indexlm.serve.engine"),
        ("model/made_up.py", "from indexlm.config import Recipe"),
        ("model/made_up.py", "try:\n    import indexlm.records as r\nfinally:\n    pass"),
        ("train/objectives/made_up.py", "from indexlm import stages"),
        ("roleplay/made_up.py", "from indexlm import pipeline as p, errors"),
        ("recipes/made_up.py", "import json, indexlm.cli"),
        ("records.py", "from indexlm.config import Recipe"),
    ],
)
def test_a_forbidden_import_is_found(place: str, source: str) -> None:
    assert len(violations(place, source)) == 1


def test_allowed_imports_are_not_complained_of() -> None:
    source = "import json\nfrom indexlm import __version__\nfrom indexlm.errors import UserError\n"
    for room, rooms in ROOMS.items():
        uses = "".join(f"import indexlm.{used}.x\n" for used in {room, *rooms})
        assert violations(f"{room}/made_up.py", source + uses) == []


@pytest.mark.parametrize("source", ["from .loop import train", "import indexlm"])
def test_imports_that_hide_what_they_use_are_refused(source: str) -> None:
    with pytest.raises(AssertionError, match="line 1"):
        list(imported(source))


def test_serving_needs_no_training_and_no_room_a_door() -> None:
    """The table itself: its entries can be added to, but not these."""
    assert "train" not in ROOMS["serve"] | ROOMS["export"] | ROOMS["roleplay"]
    assert ROOMS["model"] == set()
    assert not DOORS & set().union(*ROOMS.values(), *SHARED_USES.values())


def test_rooms_and_shared_files_have_no_cycle() -> None:
    uses = {room: rooms | SHARED for room, rooms in ROOMS.items()} | SHARED_USES
    uses["model"] = {"errors"}
    TopologicalSorter(uses).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter(uses | {"model": {"serve"}}).prepare()


def loaded_by(statement: str) -> set[str]:
    """The heavy packages that a fresh process has loaded after the statement."""
    program = f"{statement}\nimport sys\nprint(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_command_line_loads_nothing_heavy_before_a_verb_runs() -> None:
    assert loaded_by("import indexlm.cli") == set()


def test_help_and_a_recipe_load_nothing_heavy() -> None:
    help_page = (
        "import sys\nfrom indexlm.cli import main\nsys.argv = ['indexlm', 'run', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert loaded_by(help_page) == set()
    assert loaded_by("from indexlm.recipes import find; find('tiny')") == set()


def test_models_are_opened_exported_and_trained_without_the_optional_packages() -> None:
    rooms = "export.forms, indexlm.serve.engine, indexlm.stages.continuation"
    assert loaded_by(f"import indexlm.{rooms}") & OPTIONAL == set()
    rooms = "text.refine, indexlm.text.reading.hub, indexlm.tokens.any_tokenizer"
    assert loaded_by(f"import indexlm.{rooms}") & OPTIONAL == set()


def test_a_heavy_package_would_be_seen() -> None:
    assert "numpy" in loaded_by("import indexlm.tokens.shards")
    assert "gguf" in loaded_by("from indexlm.export import gguf; gguf._package()")
