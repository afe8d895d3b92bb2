"""A document's score is its own, exactly; weights are learned from labels and kept whole."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from classified_text import ADS, TALES, documents, trained
from indexlm.errors import DamagedError, UserError
from indexlm.text.block import Block
from indexlm.text.document import Document
from indexlm.text.filters.calibration import auc
from indexlm.text.filters.linear import BITS, Classifier, fit, quantised

texts = st.lists(st.text("abc 山水。\n", min_size=1, max_size=30), min_size=1, max_size=8)


def block_of(written: list[str], language: str = "en") -> Block:
    return Block(
        [Document(f"t/{n}", text, "t", language, "ordinary") for n, text in enumerate(written)]
    )


@settings(deadline=None)
@given(texts, st.data())
def test_a_score_does_not_depend_on_the_documents_around(
    written: list[str], data: st.DataObject
) -> None:
    classifier = trained("quality")
    together = classifier.raw_logits(block_of(written))
    cut = data.draw(st.integers(0, len(written) - 1))
    alone = classifier.raw_logits(block_of([written[cut]]))
    assert together[cut] == alone[0]


def test_length_decides_nothing() -> None:
    """The same sentences over and over have the score of the sentences once."""
    sentence = documents(TALES, 1)[0].text + ". "
    once, often = trained("quality").raw_logits(block_of([sentence, sentence * 200]))
    assert often == pytest.approx(once, abs=0.02 * abs(once))


def test_sums_of_the_largest_weights_do_not_overflow() -> None:
    classifier = trained("quality")
    largest = np.full((2, 2**BITS), 2**15 - 1, dtype=np.int16)
    full = Classifier(classifier.header, largest)
    expected = classifier.header.bias + 2 * classifier.header.scale * (2**15 - 1)
    assert full.raw_logits(block_of(["水" * 300_000, "a"])) == pytest.approx(expected)


def _learned(
    known: list[Document], unseen: list[Document], good_N: np.ndarray | None = None, seed: int = 1
) -> tuple[float, Classifier]:
    """AUC on unseen documents of what was learned; the first half of both is good."""
    halves = np.arange(len(known)) < len(known) // 2
    bias, weights_2W = fit(known, halves if good_N is None else good_N, seed)
    scale, units_2W = quantised(weights_2W)
    header = trained("quality").header.model_copy(update={"bias": bias, "scale": scale})
    classifier = Classifier(header, units_2W)
    logits = classifier.raw_logits(Block(unseen))
    return auc(logits, np.arange(len(unseen)) < len(unseen) // 2), classifier


def _kinds(count: int, start: int = 0) -> list[Document]:
    return [
        *documents(TALES, count, start=start, noise=0.3),
        *documents(ADS, count, start=start, noise=0.3),
    ]


def test_what_a_document_opens_with_weighs_most() -> None:
    """Two words of a kind before a hundred of both tell the kind; behind them they do not."""
    both = [
        f"{tale.text} {ad.text}" for tale, ad in zip(documents(TALES, 240), documents(ADS, 240))
    ]
    telling = [
        *(" ".join(document.text.split()[:2]) for document in documents(TALES, 120, start=300)),
        *(" ".join(document.text.split()[:2]) for document in documents(ADS, 120, start=300)),
    ]
    chances = []
    for before in (True, False):
        texts = [f"{a} {b}" if before else f"{b} {a}" for a, b in zip(telling, both)]
        made = block_of(texts).documents
        known, unseen = [*made[:80], *made[120:200]], [*made[80:120], *made[200:]]
        chances.append(_learned(known, unseen)[0])
    assert chances[0] > 0.9 > chances[1]


def test_labels_are_learned() -> None:
    assert _learned(_kinds(60), _kinds(80, start=500))[0] > 0.95


def test_labels_that_say_nothing_teach_nothing() -> None:
    shuffled = np.arange(120) < 60
    np.random.default_rng(3).shuffle(shuffled)
    assert 0.2 < _learned(_kinds(60), _kinds(80, start=500), shuffled)[0] < 0.8


def test_quantised_weights_score_like_the_exact_ones() -> None:
    weights = np.random.default_rng(0).normal(size=(2, 2**BITS))
    scale, units = quantised(weights)
    assert np.abs(units * scale - weights).max() <= 0.5 * scale * 1.001
    assert quantised(np.zeros((2, 2**BITS)))[0] == 0


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file, seed in zip(files, (1, 1, 2)):
        _learned(_kinds(60), _kinds(1), seed=seed)[1].save(file)
    first, again, other = (file.read_bytes() for file in files)
    assert first == again
    assert first != other


def test_a_saved_classifier_scores_alike(tmp_path: Path) -> None:
    path = tmp_path / "quality.safetensors"
    classifier = trained("quality")
    classifier.save(path)
    again = Classifier.load(path, "quality")
    block = Block([*documents(TALES, 20, start=300), *documents(ADS, 20, language="zh")])
    assert (again.logits(block) == classifier.logits(block)).all()
    assert again.header.languages == classifier.header.languages


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "quality.safetensors"
    trained("quality").save(path)
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    draw = random.Random(5)
    places = [draw.randrange(8, 8 + header) for _ in range(60)]
    places += [draw.randrange(8 + header, len(whole)) for _ in range(20)]
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises((DamagedError, UserError)):
            Classifier.load(path, "quality")


@pytest.mark.parametrize("kept", [0, 7, 100, 20_000])
def test_a_cut_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "quality.safetensors"
    trained("quality").save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"no classifier .* data classifier"):
        Classifier.load(path, "quality")


def test_other_files_are_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    with pytest.raises(UserError, match="does not exist"):
        Classifier.load(path, "quality")
    save_file({"weights": np.zeros((2, 2**BITS), np.int16)}, path)
    with pytest.raises(UserError, match="no classifier"):
        Classifier.load(path, "quality")
    trained("quality").save(path)
    with pytest.raises(UserError, match=r"--task quality; .* --task instructions"):
        Classifier.load(path, "instructions")


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    small = Classifier(trained("quality").header, np.zeros((2, 8), np.int16))
    small.save(path)
    assert load_file(path)["weights"].shape == (2, 8)
    with pytest.raises(UserError, match=r"int16 \(2, 8\)"):
        Classifier.load(path, "quality")
