"""Train a classifier from good and bad documents, choose its thresholds, measure it.

Documents are parted by a hash of their text, so that the same text never stands on two sides: 80%
train the weights, 10% set probabilities and thresholds, 10% are only measured. Copies of one
document count once. Memory is bounded: of more text than `MAX_CHARS`, an even share is kept.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from indexlm.config import TextConfig
from indexlm.errors import UserError
from indexlm.records import log
from indexlm.text.block import blocks
from indexlm.text.conversations import read_conversations
from indexlm.text.document import Document
from indexlm.text.filters.calibration import Judged, calibrated
from indexlm.text.filters.linear import (
    Classifier,
    Header,
    Input,
    Label,
    Task,
    fit,
    quantised,
    sigmoid,
)
from indexlm.text.normalise import normalise
from indexlm.text.reading.labelled import labelled
from indexlm.text.reading.sources import input_files

MAX_CHARS = 64_000_000
"""Of the good text and of the bad: at most 256 MB of memory each, half a minute of training."""
MIN_DOCUMENTS = 100
"""Of each label of a language; below that its 1% and its thresholds are nobody's guess."""
_GOOD = {True: "good", False: "bad"}


class Gathered:
    """Distinct documents of one label, evenly thinned where they become too many."""

    def __init__(self, max_chars: int = MAX_CHARS) -> None:
        self.max_chars = max_chars
        self.by_key: dict[int, Document] = {}
        self.chars = 0
        self.kept_share = 1.0

    def add(self, document: Document) -> None:
        key = _key(document.text)
        if not document.text or key >= self.kept_share * 2**64 or key in self.by_key:
            return
        self.by_key[key] = document
        self.chars += len(document.text)
        while self.chars > self.max_chars and len(self.by_key) > 1:
            self.kept_share /= 2
            self.by_key = {
                key: kept for key, kept in self.by_key.items() if key < self.kept_share * 2**64
            }
            self.chars = sum(len(kept.text) for kept in self.by_key.values())

    def sources(self) -> list[str]:
        """Those that give enough documents to be judged by."""
        counts = Counter(document.source for document in self.by_key.values())
        return sorted(source for source, count in counts.items() if count >= MIN_DOCUMENTS)

    def parted(self, source: str) -> tuple["Gathered", list[Document]]:
        """Without a source, and its documents."""
        rest, gone = Gathered(self.max_chars), []
        for document in self.by_key.values():
            if document.source == source:
                gone.append(document)
            else:
                rest.add(document)
        return rest, gone


@dataclass
class Examples:
    """Good and bad documents, and the files they are from."""

    good: Gathered = field(default_factory=Gathered)
    bad: Gathered = field(default_factory=Gathered)
    inputs: list[Input] = field(default_factory=list)


def read(good: Sequence[Path], bad: Sequence[Path], conversations: Sequence[Path]) -> Examples:
    """The documents of text files, as the steps see them, and what conversations look like as text.

    A conversation gives its questions and answers as one bad document. Its answers alone are a good
    one: they are of the same matters and style, so that what is learned is the asking, not the
    style of assistants. Raises UserError for a path that is missing or holds nothing to read.
    """
    examples = Examples()
    given: tuple[tuple[Label, Gathered, Sequence[Path]], ...] = (
        ("good", examples.good, good),
        ("bad", examples.bad, bad),
    )
    for name, gathered, paths in given:
        for path in paths:
            for file in input_files([str(path)], Path(TextConfig().downloads)):
                examples.inputs.append(Input.of(file.path, name))
                for document in labelled(file, normalise):
                    gathered.add(document)
    for path in conversations:
        examples.inputs.append(Input.of(path, "conversations"))
        for record in read_conversations(path):
            asked, answers = as_text(record)
            examples.bad.add(asked)
            examples.good.add(answers)
    return examples


def as_text(record: Mapping[str, Any]) -> tuple[Document, Document]:
    """A conversation without labels of its speakers, as a web page may show it; its answers alone.

    A question is parted from its answer by a line end, a blank line, or, in one conversation of
    three, by no more than two sentences are.
    """
    turns = [*record["history"], [record["query"], record["response"]]]
    space = "" if record["language"] == "zh" else " "
    between = ("\n", "\n\n", space)[_key(record["query"]) % 3]
    bare = Document(record["id"], "", "conversations", record["language"], "ordinary")
    asked = "\n".join(f"{query}{between}{response}" for query, response in turns)
    return bare.with_text(asked), bare.with_text("\n\n".join(answer for _, answer in turns))


def train(examples: Examples, *, task: Task, max_lost: float, seed: int) -> Classifier:
    """A classifier of every language that has enough documents of both labels.

    Raises UserError where there is none, and where good and bad cannot be told apart.
    """
    labelled = _covered(examples.good, examples.bad)
    parts: dict[int, list[_Labelled]] = {part: [] for part in range(10)}
    for key, item in sorted(labelled.items()):
        parts[key % 10].append(item)
    training = [item for part in range(2, 10) for item in parts[part]]
    bias, exact_2W = fit(
        [item.document for item in training], np.array([item.good for item in training]), seed
    )
    scale, weights_2W = quantised(exact_2W)
    header = Header(
        task=task,
        seed=seed,
        max_lost=max_lost,
        bias=bias,
        scale=scale,
        languages={},
        inputs=tuple(examples.inputs),
    )
    raw = Classifier(header, weights_2W)
    counts = Counter((item.document.language, item.good) for item in labelled.values())
    languages = {}
    for language in sorted({item.document.language for item in training}):
        setting, unseen = (
            _judged(raw, [item for item in parts[part] if item.document.language == language])
            for part in (0, 1)
        )
        documents = {_GOOD[label]: counts[language, label] for label in (True, False)}
        languages[language] = calibrated(language, setting, unseen, max_lost, documents)
    return Classifier(header.model_copy(update={"languages": languages}), weights_2W)


def table(header: Header) -> str:
    """What was measured on documents that trained nothing and set nothing, as aligned text."""
    lines = []
    for name, language in header.languages.items():
        counts = ", ".join(f"{count:,} {label}" for label, count in language.documents.items())
        lines.append(
            f"{name}: {counts} documents; AUC {language.auc:.4f}, calibration error "
            f"{language.calibration_error:.3f}"
        )
        heads = ("threshold", "score", "good lost", "bad caught", "precision")
        lines.append("  {:<24} {:>7} {:>10} {:>11} {:>10}".format(*heads))
        for cut in language.cuts:
            score = float(sigmoid(np.array(cut.threshold)))
            lines.append(
                f"  {cut.name:<24} {score:>7.3f} {cut.good_lost:>10.2%} {cut.bad_caught:>11.2%} "
                f"{cut.precision:>10.2%}"
            )
    return "\n".join(lines)


def unseen_sources(examples: Examples, *, task: Task, max_lost: float, seed: int) -> str:
    """What would be dropped of each source, were it not among the examples, as aligned text.

    Held-out documents are of the same sources as those that were trained on; the text that a
    classifier is made for is not. A source that no other is like, and that loses much, shows how
    little can be said of text from elsewhere.
    """
    heads = ("left out", "label", "language", "documents", "dropped")
    lines = ["{:<40} {:<5} {:<8} {:>9} {:>8}".format(*heads)]
    for name, gathered in (("good", examples.good), ("bad", examples.bad)):
        for source in gathered.sources():
            rest, gone = gathered.parted(source)
            try:
                others = Examples(
                    rest if name == "good" else examples.good,
                    rest if name == "bad" else examples.bad,
                )
                classifier = train(others, task=task, max_lost=max_lost, seed=seed)
            except UserError:
                continue  # without this source, too little is left to learn from
            low: Counter[str] = Counter()
            for block in blocks(gone):
                low_N = classifier.logits(block) < classifier.thresholds(block)
                low.update(d.language for d, dropped in zip(block.documents, low_N) if dropped)
            for language, count in sorted(Counter(d.language for d in gone).items()):
                if language in classifier.header.languages:
                    share = low[language] / count
                    lines.append(
                        f"{source[-40:]:<40} {name:<5} {language:<8} {count:>9,} {share:>8.2%}"
                    )
    return "\n".join(lines)


@dataclass(frozen=True)
class _Labelled:
    document: Document
    good: bool


def _key(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _covered(good: Gathered, bad: Gathered) -> dict[int, _Labelled]:
    """By key the documents of the languages that have enough of both labels.

    A text that is given as good and as bad says nothing and is left out.
    """
    both = good.by_key.keys() & bad.by_key.keys()
    if both:
        log.warning("%d documents are given as good and as bad; they are left out", len(both))
    labelled = {
        key: _Labelled(document, label)
        for label, gathered in ((True, good), (False, bad))
        for key, document in gathered.by_key.items()
        if key not in both
    }
    counts = Counter((item.document.language, item.good) for item in labelled.values())
    languages = sorted({language for language, _ in counts})
    enough = {
        language
        for language in languages
        if min(counts[language, True], counts[language, False]) >= MIN_DOCUMENTS
    }
    told = "; ".join(
        f"{name or 'no language'} {counts[name, True]:,} good, {counts[name, False]:,} bad"
        for name in languages
        if name not in enough
    )
    if not enough:
        raise UserError(
            f"no language has {MIN_DOCUMENTS} different documents of each label ({told}); give "
            "more --good and --bad"
        )
    if told:
        log.info(f"left out, for fewer than {MIN_DOCUMENTS} documents of a label: {told}")
    return {key: item for key, item in labelled.items() if item.document.language in enough}


def _judged(raw: Classifier, items: Sequence[_Labelled]) -> Judged:
    logits = [raw.raw_logits(block) for block in blocks(item.document for item in items)]
    return Judged(
        np.concatenate([*logits, []]), np.array([item.good for item in items], dtype=bool)
    )
