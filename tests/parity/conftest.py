"""Tests that need files of the user's run only where the command line names their folder."""

from pathlib import Path

import pytest

OPTION = "--llama2c"
FIXTURE = "llama2c_folder"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        OPTION,
        type=Path,
        metavar="FOLDER",
        help="a folder with one model of llama2.c and its tokenizer (tok*.bin), to generate from",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # None too where this file is read after the command line, in a run of all tests.
    if config.getoption(OPTION, None) is not None:
        return
    left = [
        item for item in items if isinstance(item, pytest.Function) and FIXTURE in item.fixturenames
    ]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.fixture
def llama2c_folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.getoption(OPTION))
