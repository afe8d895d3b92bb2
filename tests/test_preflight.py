"""What is refused before anything is written."""

import importlib.util

import pytest

from indexlm.errors import UserError
from indexlm.preflight import check_before
from indexlm.recipes import tiny
from indexlm.settings import with_overrides


def test_curves_without_their_package_are_refused_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = with_overrides(tiny.recipe(), ["tensorboard=true"])
    check_before(asked)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name)
    )
    with pytest.raises(UserError, match=r"pip install 'indexlm\[tensorboard\]'"):
        check_before(asked)
    check_before(tiny.recipe())


def test_a_mixture_can_name_code() -> None:
    """Which the text room labels like a language."""
    check_before(with_overrides(tiny.recipe(), ["pretrain.mixture.code_ordinary=0.1"]))
    with pytest.raises(UserError, match="no text is of source"):
        check_before(with_overrides(tiny.recipe(), ["pretrain.mixture.fr_ordinary=0.1"]))
