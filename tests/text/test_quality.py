"""Low quality is dropped by language; tiers follow the score only where that is asked for."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from classified_text import ADS, TALES, documents, trained
from indexlm.config import QualityConfig
from indexlm.errors import UserError
from indexlm.text.block import Block
from indexlm.text.document import Columns, Document
from indexlm.text.filters.quality import quality


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quality") / "quality.safetensors"
    trained("quality").save(path)
    return path


def answers(model: Path, given: list[Document], **settings: str | float) -> Columns:
    config = QualityConfig.model_validate({"model": str(model), **settings})
    return quality(config)(Block(given))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_bad_text_is_dropped_and_good_text_kept(model: Path, language: str) -> None:
    tales = documents(TALES, 50, language=language, start=3000)
    ads = documents(ADS, 50, language=language, start=3000)
    columns = answers(model, [*tales, *ads])
    assert columns["reason"] == [""] * 50 + ["low_quality"] * 50
    scores = np.array(columns["score"])
    assert scores.dtype == np.float32
    assert scores[:50].min() > 0.5 > scores[50:].max()


def test_the_tier_of_the_input_is_kept_unless_the_classifier_is_asked(model: Path) -> None:
    given = [*documents(TALES, 3, start=4000), *documents(ADS, 3, start=4000)]
    assert answers(model, given)["tier"] == ["ordinary"] * 6
    by_score = answers(model, given, tiers="classifier", curated_from=0.7)["tier"]
    assert by_score == ["curated"] * 3 + ["noisy"] * 3


def test_bounds_of_tiers_are_scores(model: Path) -> None:
    given = documents(TALES, 200, start=4000, noise=0.45)
    columns = answers(model, given, tiers="classifier", curated_from=0.8, noisy_below=0.3)
    for score, tier in zip(columns["score"], columns["tier"]):
        assert tier == ("curated" if score >= 0.8 else "noisy" if score < 0.3 else "ordinary")
    assert len(set(columns["tier"])) == 3


def test_a_language_that_was_not_trained_on_is_left_alone(model: Path) -> None:
    code = Document("c/1", "for (i = 0; i < n; i++) { sale(i); }", "c", "code", "noisy")
    columns = answers(model, [code, *documents(ADS, 1, start=4000)], tiers="classifier")
    assert columns["reason"] == ["", "low_quality"]
    assert np.isnan(columns["score"][0])
    assert columns["tier"] == ["noisy", "noisy"]


def test_answers_do_not_depend_on_how_blocks_are_cut(model: Path) -> None:
    given = [*documents(TALES, 20, noise=0.4), *documents(ADS, 20, language="zh", noise=0.4)]
    whole = answers(model, given, tiers="classifier")
    for cut in (1, 7, 33):
        parts = [answers(model, part, tiers="classifier") for part in (given[:cut], given[cut:])]
        for name in ("reason", "score", "tier"):
            assert [*parts[0][name], *parts[1][name]] == list(whole[name])


def test_mistakes_are_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        quality(QualityConfig(model=str(tmp_path / "none.safetensors")))
    trained("instructions").save(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="--task quality"):
        quality(QualityConfig(model=str(tmp_path / "other.safetensors")))
    with pytest.raises(ValidationError, match=r"noisy_below=0.8 is above curated_from=0.5"):
        QualityConfig(model="m", noisy_below=0.8, curated_from=0.5)
