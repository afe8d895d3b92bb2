"""Good text or bad: logistic regression on hashed n-grams of characters.

A document's logit is `bias + mean weight of its n-grams + mean weight of its opening's n-grams`,
so that its length decides nothing. N-grams of 1 to 4 code points need no word borders, hence serve
Chinese and English alike; their hashes share one small table (Weinberger et al. 2009, feature
hashing). The opening has weights of its own, because what asks says so in its first words.

Weights are stored as 16-bit integers: sums of integers are the same in any order, so a document
has the same logit in whatever block and on whatever machine it is read.

Shapes: N documents, C characters, W weights of a table.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from indexlm.config import Section
from indexlm.errors import DamagedError, UserError, shown
from indexlm.records import sha256_file
from indexlm.text.block import Block
from indexlm.text.document import Document

ORDERS = 4
BITS = 18
"""2**18 weights of 16 bits, 512 KB, are gathered from a core's second cache."""
OPENING = 16
"""Characters of the opening: most of a Chinese instruction, the first words of an English one."""

PASSES = 3
STEPS = 150
"""Over the training text, and at least so many steps where there is little of it."""
STEP_CHARS = 200_000
LEARNING_RATE = 2.0

_FACTOR = np.uint32(0x9E3779B1)
"""2**32 over the golden ratio, to the next odd number (Knuth's multiplicative hash)."""
_SHIFT = np.uint32(32 - BITS)
_OPENING_SEED = 0x1000_0000
_NEWLINE = 10
_LARGEST = 2**15 - 1
_METADATA, _WEIGHTS = "indexlm", "weights"

Task = Literal["quality", "instructions"]
Label = Literal["good", "bad", "conversations"]


class Cut(Section):
    """What a threshold does to the held-out documents of one language; shares are of documents."""

    name: str
    threshold: float
    good_lost: float
    bad_caught: float
    precision: float
    """Of what is dropped, the share that is bad, where half of all text is bad."""


class Calibration(Section):
    """What makes a logit of one language a probability (Platt 1999), and what was measured.

    Probabilities are those of a corpus of which half is good. `cuts` starts with the conservative
    one, whose `threshold`, like all of them, is of calibrated logits.
    """

    slope: float = Field(gt=0)
    offset: float
    documents: dict[str, int]
    auc: float = Field(ge=0, le=1)
    calibration_error: float = Field(ge=0, le=1)
    cuts: Annotated[tuple[Cut, ...], Field(min_length=1)]


class Input(Section):
    """A file that a classifier was trained on."""

    name: str
    sha256: str
    label: Label

    @classmethod
    def of(cls, path: Path, label: Label) -> "Input":
        return cls(name=path.name, sha256=sha256_file(path), label=label)


class Header(Section):
    """All that a classifier says of itself beside its weights."""

    format: Literal["indexlm-classifier-1"] = "indexlm-classifier-1"
    task: Task
    seed: int
    max_lost: float
    """Share of good documents that the conservative threshold may drop."""
    orders: Literal[4] = 4
    opening: Literal[16] = 16
    bias: float
    scale: float = Field(ge=0)
    """Of one unit of the stored weights."""
    languages: dict[str, Calibration]
    inputs: tuple[Input, ...]
    sha256: str = ""
    """Of this header without it, and of the weights."""


class Classifier:
    """Weights and what they mean."""

    def __init__(self, header: Header, weights_2W: NDArray[np.int16]) -> None:
        """`weights_2W` of all n-grams, and of those of the opening."""
        self.header = header
        self.weights_2W = weights_2W

    def raw_logits(self, block: Block) -> NDArray[np.float64]:
        """[N], not calibrated; above 0 speaks for good."""
        return self.header.bias + self.header.scale * sum(
            grams.sums(weights_W) / grams.counts_N
            for grams, weights_W in zip(_both(block), self.weights_2W)
        )

    def logits(self, block: Block) -> NDArray[np.float64]:
        """[N] calibrated; NaN for languages that the classifier was not trained on."""
        logits_N = self.raw_logits(block)
        languages = self.header.languages
        slopes = {name: each.slope for name, each in languages.items()}
        offsets = {name: each.offset for name, each in languages.items()}
        return logits_N * _of(block, slopes) + _of(block, offsets)

    def thresholds(self, block: Block) -> NDArray[np.float64]:
        """[N] below which a calibrated logit is too low; NaN for languages not trained on."""
        languages = self.header.languages
        return _of(block, {name: each.cuts[0].threshold for name, each in languages.items()})

    def save(self, path: Path) -> None:
        """One safetensors file, the same bytes for the same classifier."""
        header = self.header.model_copy(update={"sha256": _digest(self.header, self.weights_2W)})
        told = {_METADATA: header.model_dump_json()}
        path.write_bytes(save({_WEIGHTS: self.weights_2W}, metadata=told))

    @classmethod
    def load(cls, path: Path, task: Task) -> "Classifier":
        """Raises UserError for what is no classifier of this task, DamagedError for a damaged
        one."""
        remedy = "give a file that `indexlm data classifier` wrote"
        if not path.is_file():
            raise UserError(f"{path} does not exist; {remedy}")
        try:
            with safe_open(path, framework="numpy") as file:
                header = Header.model_validate_json((file.metadata() or {}).get(_METADATA, ""))
                weights_2W = file.get_tensor(_WEIGHTS)
        except (SafetensorError, ValidationError) as error:
            told = shown(str(error).splitlines()[0])
            raise UserError(f"{path} is no classifier ({told}); {remedy}") from error
        if weights_2W.shape != (2, 2**BITS) or weights_2W.dtype != np.int16:
            raise UserError(
                f"{path} holds weights of {weights_2W.dtype} {weights_2W.shape}, not of int16 "
                f"{(2, 2**BITS)}; {remedy}"
            )
        if _digest(header, weights_2W) != header.sha256:
            raise DamagedError(f"{path} was changed after it was written (SHA-256); train it anew")
        if header.task != task:
            raise UserError(
                f"{path} was trained with --task {header.task}; {remedy} with --task {task}"
            )
        return cls(header, weights_2W)


def fit(
    documents: Sequence[Document], good_N: NDArray[np.bool_], seed: int
) -> tuple[float, NDArray[np.float64]]:
    """Bias and [2, W] weights by AdaGrad (Duchi et al. 2011) on the logistic loss.

    Every pair of a language and a label weighs the same, however much text it has.
    """
    draw = np.random.default_rng(seed)
    shares_N = equal_shares(
        [f"{document.language} {good}" for document, good in zip(documents, good_N)]
    )
    total = sum(len(document.text) for document in documents)
    step_chars = min(STEP_CHARS, PASSES * total // STEPS)
    parameters = np.zeros(1 + 2 * 2**BITS)
    squares = np.full_like(parameters, 1e-12)
    for _ in range(PASSES):
        for chosen in _steps(documents, draw.permutation(len(documents)), step_chars):
            block = Block([documents[n] for n in chosen])
            gradient = _gradient(parameters, block, good_N[chosen], shares_N[chosen])
            squares += gradient**2
            parameters -= LEARNING_RATE * gradient / np.sqrt(squares)
    return float(parameters[0]), parameters[1:].reshape(2, -1)


def quantised(weights_2W: NDArray[np.float64]) -> tuple[float, NDArray[np.int16]]:
    """The value of one unit, and the weights in such units."""
    scale = float(np.abs(weights_2W).max()) / _LARGEST
    return scale, np.rint(weights_2W / (scale or 1.0)).astype(np.int16)


class _Grams:
    """The n-grams of texts that lie in one array, as places in a table; none crosses a border."""

    def __init__(
        self, codes_C: NDArray[np.uint32], lengths_N: NDArray[np.int64], seed: int
    ) -> None:
        self.codes_C, self.lengths_N, self.seed = codes_C, lengths_N, np.uint32(seed)
        self.ends_N = np.cumsum(lengths_N)
        orders = np.arange(ORDERS)
        self.counts_N = np.maximum(lengths_N[:, None] - orders, 0).sum(1)

    def sums(self, table_W: NDArray[Any]) -> NDArray[Any]:
        """[N] sums over all n-grams."""
        total_C = np.zeros(len(self.codes_C), dtype=np.promote_types(table_W.dtype, np.int32))
        for places, crossing in self._places():
            values = table_W.take(places)
            values[crossing] = 0
            total_C[: len(values)] += values
        wide = np.promote_types(table_W.dtype, np.int64)
        return np.add.reduceat(total_C, self.ends_N - self.lengths_N, dtype=wide)

    def scattered(self, values_N: NDArray[np.float64]) -> NDArray[np.float64]:
        """[W]: of each place, the sum of the values of the documents that its n-grams stand in."""
        values_C = np.repeat(values_N, self.lengths_N)
        sums_W = np.zeros(2**BITS)
        for places, crossing in self._places():
            values = values_C[: len(places)].copy()
            values[crossing] = 0
            sums_W += np.bincount(places, weights=values, minlength=2**BITS)
        return sums_W

    def _places(self) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.int64]]]:
        """For 1, 2, ... characters: the place of the n-gram that begins at each character, and
        which of them cross a border."""
        hashes = (self.codes_C + self.seed) * _FACTOR
        for ahead in range(ORDERS):
            if ahead:
                hashes = (hashes[:-1] + self.codes_C[ahead:]) * _FACTOR
            before = (self.ends_N[:, None] - 1 - np.arange(ahead)).ravel()
            yield hashes >> _SHIFT, before[(before >= 0) & (before < len(hashes))]


def _both(block: Block) -> tuple[_Grams, _Grams]:
    """The n-grams of whole documents, and of a border and their openings."""
    lengths_N = np.minimum(block.lengths_N, OPENING) + 1
    firsts_N = np.cumsum(lengths_N) - lengths_N
    index = np.repeat(block.starts_N - 1 - firsts_N, lengths_N) + np.arange(lengths_N.sum())
    codes_C = block.codes_C[index]
    codes_C[firsts_N] = _NEWLINE
    return _Grams(block.codes_C, block.lengths_N, 0), _Grams(codes_C, lengths_N, _OPENING_SEED)


def _gradient(
    parameters: NDArray[np.float64],
    block: Block,
    good_N: NDArray[np.bool_],
    shares_N: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Of the mean logistic loss of a block, by bias and weights."""
    both = _both(block)
    weights_2W = parameters[1:].reshape(2, -1)
    logits_N = parameters[0] + sum(
        grams.sums(weights_W) / grams.counts_N for grams, weights_W in zip(both, weights_2W)
    )
    residuals_N = (sigmoid(logits_N) - good_N) * shares_N / shares_N.sum()
    parts = [grams.scattered(residuals_N / grams.counts_N) for grams in both]
    return np.concatenate([[residuals_N.sum()], *parts])


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (1 + np.tanh(0.5 * logits))


def _steps(
    documents: Sequence[Document], order: NDArray[np.int64], step_chars: int
) -> Iterator[list[int]]:
    """Documents in this order, gathered to steps of at least so many characters."""
    gathered: list[int] = []
    size = 0
    for number in order.tolist():
        gathered.append(number)
        size += len(documents[number].text)
        if size >= step_chars:
            yield gathered
            gathered, size = [], 0
    if gathered:
        yield gathered


def _digest(header: Header, weights_2W: NDArray[np.int16]) -> str:
    told = header.model_copy(update={"sha256": ""}).model_dump_json()
    return hashlib.sha256(told.encode() + weights_2W.tobytes()).hexdigest()


def equal_shares(names: Sequence[str | bool]) -> NDArray[np.float64]:
    """Weights of items with which all names weigh the same."""
    _, index, counts = np.unique(names, return_inverse=True, return_counts=True)
    return len(names) / len(counts) / counts[index]


def _of(block: Block, by_language: Mapping[str, float]) -> NDArray[np.float64]:
    return np.array([by_language.get(each.language, np.nan) for each in block.documents])
