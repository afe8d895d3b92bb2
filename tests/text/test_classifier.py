"""Thresholds lose no more good text than asked, and what is reported was measured on other text."""

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classified_text import ADS, TALES, documents, examples, trained
from indexlm.errors import UserError
from indexlm.text.block import Block
from indexlm.text.document import Document
from indexlm.text.filters.calibration import auc
from indexlm.text.filters.classifier import (
    Examples,
    Gathered,
    as_text,
    read,
    table,
    train,
    unseen_sources,
)
from indexlm.text.filters.linear import Classifier, sigmoid


def gathered(texts: list[str], max_chars: int = 1000) -> set[str]:
    made = Gathered(max_chars)
    for number, text in enumerate(texts):
        made.add(Document(f"t/{number}", text, "t", "en", "noisy"))
    assert made.chars == sum(len(document.text) for document in made.by_key.values())
    return {document.text for document in made.by_key.values()}


@given(st.lists(st.text("ab", min_size=1, max_size=300), max_size=60), st.randoms())
def test_too_much_text_is_thinned_alike_in_any_order(texts: list[str], draw: random.Random) -> None:
    kept = gathered(texts)
    draw.shuffle(texts)
    assert gathered(texts) == kept
    assert sum(map(len, kept)) <= 1000
    if sum(map(len, set(texts))) <= 1000:
        assert kept == set(texts)


def test_good_text_is_kept_and_bad_text_is_caught() -> None:
    classifier = train(examples(300, noise=0.2), task="quality", max_lost=0.01, seed=1)
    for language in ("en", "zh"):
        good = Block(documents(TALES, 400, language=language, start=5000, noise=0.2))
        bad = Block(documents(ADS, 400, language=language, start=5000, noise=0.2))
        assert (classifier.logits(good) < classifier.thresholds(good)).mean() < 0.04
        assert (classifier.logits(bad) < classifier.thresholds(bad)).mean() > 0.5


def test_a_larger_share_that_may_be_lost_catches_more() -> None:
    noisy = examples(400, noise=0.42)
    strict, loose = (
        train(noisy, task="quality", max_lost=lost, seed=1).header for lost in (0.01, 0.3)
    )
    for language in ("en", "zh"):
        cuts = [header.languages[language].cuts[0] for header in (strict, loose)]
        assert cuts[0].threshold < cuts[1].threshold <= 0
        assert cuts[0].bad_caught < cuts[1].bad_caught


def test_no_threshold_drops_what_is_more_likely_good() -> None:
    """Where the kinds are told apart perfectly, 1% of the good still lies above even odds."""
    for language in trained("quality").header.languages.values():
        assert language.cuts[0].name == "conservative"
        assert language.cuts[0].threshold <= 0


@pytest.mark.parametrize("bad_documents", [600, 200])
def test_scores_are_chances(bad_documents: int) -> None:
    """Of documents with a score of about p, a share of about p is good where half of all are,
    however many there were to train on."""
    given = examples(600, noise=0.42, languages=("en",))
    given.bad = examples(bad_documents, noise=0.42, languages=("en",)).bad
    classifier = train(given, task="quality", max_lost=0.01, seed=1)
    blocks = [Block(documents(kind, 1500, start=9000, noise=0.42)) for kind in (TALES, ADS)]
    chances = np.concatenate([sigmoid(classifier.logits(block)) for block in blocks])
    good = np.arange(3000) < 1500
    for low, high in ((0.1, 0.4), (0.4, 0.6), (0.6, 0.9)):
        inside = (chances >= low) & (chances < high)
        assert inside.sum() > 50
        assert good[inside].mean() == pytest.approx(chances[inside].mean(), abs=0.12)


def test_what_is_reported_holds_on_new_documents() -> None:
    classifier = train(examples(800, noise=0.42), task="quality", max_lost=0.05, seed=1)
    told = classifier.header.languages["en"]
    blocks = [Block(documents(kind, 1000, start=9000, noise=0.42)) for kind in (TALES, ADS)]
    logits = np.concatenate([classifier.logits(block) for block in blocks])
    assert auc(logits, np.arange(2000) < 1000) == pytest.approx(told.auc, abs=0.1)
    assert told.calibration_error < 0.15
    assert told.documents == {"good": 800, "bad": 800}
    for cut in told.cuts:
        assert (logits[:1000] < cut.threshold).mean() == pytest.approx(cut.good_lost, abs=0.1)
        assert (logits[1000:] < cut.threshold).mean() == pytest.approx(cut.bad_caught, abs=0.15)


def test_the_table_names_each_language_and_threshold() -> None:
    lines = table(trained("quality").header).splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith(" ")] == ["en", "zh"]
    assert sum(line.startswith("  conservative") for line in lines) == 2


@pytest.mark.parametrize(
    ("logits", "good", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([1, 1, 1, 1], [0, 0, 1, 1], 0.5),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),
    ],
)
def test_auc_is_the_chance_of_the_right_order(
    logits: list[float], good: list[int], expected: float
) -> None:
    assert auc(np.array(logits, float), np.array(good, bool)) == expected


def test_text_of_both_labels_teaches_nothing(caplog: pytest.LogCaptureFixture) -> None:
    clean, mixed = examples(languages=("en",)), examples(languages=("en",))
    for document in documents(TALES, 20, start=700):
        mixed.good.add(document)
        mixed.bad.add(document)
    made = [train(each, task="quality", max_lost=0.01, seed=1) for each in (clean, mixed)]
    assert (made[0].weights_2W == made[1].weights_2W).all()
    assert "20 documents are given as good and as bad" in caplog.text


def test_a_language_with_too_little_is_left_out() -> None:
    some = examples(languages=("en",))
    for document in documents(TALES, 150, language="zh"):
        some.good.add(document)
    header = train(some, task="quality", max_lost=0.01, seed=1).header
    assert set(header.languages) == {"en"}
    with pytest.raises(UserError, match=r"100 different documents .*en 30 good, 30 bad"):
        train(examples(30), task="quality", max_lost=0.01, seed=1)


def test_labels_that_say_nothing_are_refused() -> None:
    """Half of each kind under each label."""
    mixed = Examples()
    for kind in (TALES, ADS):
        for number, document in enumerate(documents(kind, 400)):
            (mixed.good if number % 2 else mixed.bad).add(document)
    try:
        header = train(mixed, task="quality", max_lost=0.01, seed=1).header
    except UserError as error:
        assert "cannot be told apart" in str(error)
    else:
        assert header.languages["en"].auc < 0.7


def test_a_source_unlike_all_others_is_told_of() -> None:
    """Ads given as good text are kept where they were seen, and lost where they were not."""
    some = examples(languages=("en",))
    odd = [replace(d, source="odd") for d in documents(ADS, 120, start=5000)]
    more = [replace(d, source="more") for d in documents(TALES, 120, start=5000)]
    for document in (*odd, *more):
        some.good.add(document)
    lines = unseen_sources(some, task="quality", max_lost=0.01, seed=1).splitlines()
    shares = {tuple(line.split()[:2]): float(line.split()[-1][:-1]) for line in lines[1:]}
    assert shares["odd", "good"] > 90
    assert shares["more", "good"] < 5
    assert ("t", "bad") not in shares


TURNS = {"id": "c/1", "language": "en", "history": [["Who?", "Me."]], "query": "Why?"}


@pytest.mark.parametrize(
    "change", [{}, {"language": "zh"}, {"history": []}, {"query": "Where to?"}]
)
def test_a_conversation_is_bad_and_its_answers_are_good(change: Mapping[str, Any]) -> None:
    record = {**TURNS, "response": "So be it.", **change}
    asked, answers = as_text(record)
    assert "".join(asked.text.split()).endswith("".join(f"{record['query']}Sobeit.".split()))
    assert ("Who?" in asked.text) == bool(record["history"])
    assert record["query"] not in answers.text
    assert answers.text.endswith("So be it.")
    assert asked.language == answers.language == record["language"]


def test_files_are_read_as_the_steps_see_them(tmp_path: Path) -> None:
    rows = [row | {"text": f"{row['text']}\u3000 \r\nfull"} for row in _rows(documents(TALES, 120))]
    _write(tmp_path / "good.jsonl", rows)
    _write(tmp_path / "bad.jsonl", _rows(documents(ADS, 60)))
    chats = [{"query": d.text, "response": f"{d.text} yes"} for d in documents(ADS, 60, start=60)]
    _write(tmp_path / "chats.jsonl", chats)
    made = read([tmp_path / "good.jsonl"], [tmp_path / "bad.jsonl"], [tmp_path / "chats.jsonl"])
    assert [(each.name, each.label) for each in made.inputs] == [
        ("good.jsonl", "good"),
        ("bad.jsonl", "bad"),
        ("chats.jsonl", "conversations"),
    ]
    assert (len(made.good.by_key), len(made.bad.by_key)) == (180, 120)
    assert {document.language for document in made.good.by_key.values()} == {"en"}
    assert all("\r" not in document.text for document in made.good.by_key.values())


def test_the_verb_writes_a_classifier_and_says_what_it_is_worth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from indexlm.cli.classifier import classifier

    for name, kind in (("good", TALES), ("bad", ADS)):
        made = [*documents(kind, 150), *documents(kind, 150, language="zh")]
        _write(tmp_path / f"{name}.jsonl", _rows(made))
    given = {"good": [tmp_path / "good.jsonl"], "task": "quality", "lose": 0.01, "seed": 1}
    given["each_source"] = False
    out = tmp_path / "quality.safetensors"
    with pytest.raises(UserError, match="--bad"):
        classifier(**given, out=out, bad=None, conversations=None)
    assert not out.exists()
    classifier(**given, out=out, bad=[tmp_path / "bad.jsonl"], conversations=None)
    assert "AUC" in capsys.readouterr().out
    loaded = Classifier.load(out, "quality")
    assert set(loaded.header.languages) == {"en", "zh"}
    assert [each.name for each in loaded.header.inputs] == ["good.jsonl", "bad.jsonl"]
    with pytest.raises(UserError, match="exists"):
        classifier(**given, out=out, bad=[tmp_path / "bad.jsonl"], conversations=None)


def _rows(made: list[Document]) -> list[dict[str, str]]:
    return [{"text": document.text, "language": document.language} for document in made]


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
