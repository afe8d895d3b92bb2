"""The needle test: is a sentence found again, wherever it stands in a long text?

One made-up sentence (a place and its code) stands at a depth of running text, and the text ends
with the beginning of the same sentence (Kamradt 2023; NeedleBench, Li et al. 2024). Two measures,
since a small model cannot answer freely: `choice`, the right code is likelier than every other
one (chance 1 / options), and `recall`, the likeliest continuation is the code, token by token.
All options are orders of the same digits: with digits of their own, a network that only favours
tokens it has seen anywhere in the text chose right in 28% of cases where chance was 12.5%.

A prompt is made of ids, so that a cell has exactly the tokens it names and the code stands in the
needle with the ids that are asked for. All options of a prompt share one pass over it.

Shape suffixes: B rows (one), T positions, D width, V vocabulary.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, permutations, product
from typing import Any, Literal

import torch

from indexlm.errors import UserError
from indexlm.evals.scoring import Score, evaluating
from indexlm.model.rope import ntk_base
from indexlm.model.transformer import Transformer, with_window
from indexlm.records import Progress
from indexlm.tokens.chat_format import Conversation, prompt_ids
from indexlm.tokens.tokenizer import EOS, Tokenizer

Beyond = Literal["refuse", "plain", "ntk"]
"""What is done with a length beyond the model's window: refuse it, run the model as it is (plain
extrapolation), or stretch its RoPE for that length (dynamic NTK)."""

REPORT_FACTOR = 8.0
"""The Index-1.9B report compares its 32K model with the 4K one under dynamic NTK x 8."""

CODE_DIGITS = 5
MOST_OPTIONS = 16


@dataclass(frozen=True)
class Wording:
    """The needle is `lead`, the code and `end`; `question` asks a chat model for it.

    A question does not end like the lead: what copies the newest match would go on with it.
    """

    lead: str
    end: str
    question: str
    syllables: str
    """Of made-up names."""
    name: str

    def draw_name(self, rng: random.Random) -> str:
        drawn = "".join(rng.choice(self.syllables.split()) for _ in range(3))
        return self.name.format(drawn.capitalize())


WORDINGS = {
    "zh": Wording(
        lead="{}的暗号是",
        end="。",
        question="请根据上面的文字，说出{}的暗号。",
        syllables="云 青 石 白 水 山 木 金 南 北 东 西 长 明 安 平",
        name="{}镇",
    ),
    # The space belongs to the lead: a code is digits alone in both languages.
    "en": Wording(
        lead="The password of {} is ",
        end=".",
        question="From the text above, tell me the password of {}.",
        syllables="ba den fo gar hel ka lor mi nu pel ra sol ta ven wi zu",
        name="{}",
    ),
}


@dataclass(frozen=True)
class Grid:
    """What is tested: `items` prompts of each length (tokens), depth (percent) and language."""

    lengths: Sequence[int]
    depths: Sequence[int] = (0, 25, 50, 75, 100)
    items: int = 8
    options: int = 8
    seed: int = 1234

    def __post_init__(self) -> None:
        """Raises UserError for what is no grid."""
        if not self.lengths or not self.depths or self.items < 1:
            raise UserError("a needle test needs a length, a depth and at least one item")
        for length in self.lengths:
            if length < 1:
                raise UserError(f"length {length} is no number of tokens")
        for depth in self.depths:
            if not 0 <= depth <= 100:
                raise UserError(f"depth {depth} is not a percentage from 0 to 100")
        if not 2 <= self.options <= MOST_OPTIONS:
            raise UserError(f"{self.options} options; give 2 to {MOST_OPTIONS}")


@dataclass(frozen=True)
class Haystack:
    """Running text of one language: the ids of `documents` in a drawn order, repeated to be long
    enough, as one document."""

    language: str
    documents: Sequence[str]
    ids: list[int]


@dataclass(frozen=True)
class NeedleItem:
    """`options[0]` is the right continuation of `prompt`, in which it stands from `at` on."""

    prompt: list[int]
    options: list[list[int]]
    at: int


def needle_test(
    model: Transformer,
    tokenizer: Tokenizer,
    texts: Mapping[str, Sequence[str]],
    grid: Grid,
    *,
    chat: bool = False,
    beyond: Beyond = "refuse",
    factor: float = REPORT_FACTOR,
) -> dict[str, Any]:
    """Score every cell of the grid in documents by language (`zh`, `en`).

    Equal grids and texts give equal prompts, so two models with one tokenizer, or two values of
    `beyond`, answer the same items. `factor` is that of NTK scaling. With `chat` the text is a
    message in the chat format and the assistant begins with the lead of the needle.

    The result holds plain values: {"chance", "options", "items" (of each cell), "chat", "trained"
    (the model's window), "beyond", "factor", "windows": [{"length", "rope_base"}], "cells":
    [{"language", "length", "depth", "items", "choice", "recall"}], "worst": the cell of the lowest
    choice, then recall}. Raises UserError for a length beyond the window where that is refused or
    too short for the needle, and for a language that is unknown or without text.
    """
    if not texts:
        raise UserError("there is no text to hide a needle in")
    lengths = sorted(set(grid.lengths))
    windows = {length: _window(model, length, beyond, factor) for length in lengths}
    haystacks = {
        language: draw_haystacks(tokenizer, language, documents, grid)
        for language, documents in texts.items()
    }
    places = list(product(lengths, sorted(set(grid.depths)), haystacks))
    cells = {}
    tokens = sum(length for length, _, _ in places) * grid.items
    progress = Progress("needle test", tokens)
    # The longest first: what does not fit the memory fails at once.
    for place in reversed(places):
        length, depth, language = place
        items = cell_items(tokenizer, haystacks[language], grid, length, depth, chat=chat)
        about = {"language": language, "length": length, "depth": depth, "items": grid.items}
        cells[place] = about | _score_cell(windows[length], items, progress)
    progress.close()
    return {
        "chance": 1 / grid.options,
        "options": grid.options,
        "items": grid.items,
        "chat": chat,
        "trained": model.config.context,
        "beyond": beyond,
        "factor": factor,
        "windows": [
            {"length": length, "rope_base": windows[length].config.rope_base} for length in lengths
        ],
        "cells": [cells[place] for place in places],
        "worst": min(cells.values(), key=lambda cell: (cell["choice"], cell["recall"])),
    }


def _score_cell(
    model: Transformer, items: Iterator[NeedleItem], progress: Progress
) -> dict[str, float]:
    answers = []
    for item in items:
        answers.append(judged(score_options(model, item)))
        progress.advance(len(item.prompt) + len(item.options[0]))
    choices, recalls = zip(*answers)
    return {"choice": sum(choices) / len(answers), "recall": sum(recalls) / len(answers)}


def draw_haystacks(
    tokenizer: Tokenizer, language: str, documents: Sequence[str], grid: Grid
) -> list[Haystack]:
    """One for each item of a cell: whole documents, a line break between them."""
    if language not in WORDINGS:
        raise UserError(f"no needle in language {language!r}; there is {', '.join(WORDINGS)}")
    if not any(documents):
        raise UserError(f"there is no {language} text to hide a needle in")
    haystacks = []
    for number in range(grid.items):
        rng = random.Random(f"{grid.seed}/{language}/{number}")
        ids: list[int] = []
        for document in cycle(rng.sample(documents, len(documents))):
            if len(ids) >= max(grid.lengths):
                break
            ids += tokenizer.encode(document + "\n")
        haystacks.append(Haystack(language, documents, ids))
    return haystacks


def cell_items(
    tokenizer: Tokenizer,
    haystacks: Sequence[Haystack],
    grid: Grid,
    length: int,
    depth: int,
    *,
    chat: bool = False,
) -> Iterator[NeedleItem]:
    """The items of one cell: a needle of its own in each haystack, so that cells differ in their
    needles and share no luck."""
    for number, haystack in enumerate(haystacks):
        rng = random.Random(f"{grid.seed}/{haystack.language}/{length}/{depth}/{number}")
        yield build_item(tokenizer, haystack, rng, length, depth, grid.options, chat=chat)


def build_item(
    tokenizer: Tokenizer,
    haystack: Haystack,
    rng: random.Random,
    length: int,
    depth: int,
    options: int,
    *,
    chat: bool = False,
) -> NeedleItem:
    """A prompt that with its answer has exactly `length` tokens.

    `depth` percent of the running text stand before the needle. Raises UserError where `length`
    has no room for needle and question.
    """
    wording = WORDINGS[haystack.language]
    name = wording.draw_name(rng)
    while any(name in document for document in haystack.documents):
        name = wording.draw_name(rng)
    codes = draw_codes(tokenizer, rng, options)
    line_break = tokenizer.encode("\n")
    lead = tokenizer.encode(wording.lead.format(name))
    needle = [*line_break, *lead, *codes[0], *tokenizer.encode(wording.end), *line_break]
    if chat:
        question = tokenizer.encode("\n" + wording.question.format(name))
        frame = prompt_ids(tokenizer, Conversation("", (), ""))
        before, after = frame[:-1], [*question, *frame[-1:], *lead]
    else:
        before, after = [EOS], [*line_break, *lead]
    fixed = len(before) + len(needle) + len(after) + len(codes[0])
    if fixed > length:
        raise UserError(
            f"{length} tokens have no room for a needle and its question, which take {fixed}"
        )
    hay = haystack.ids[: length - fixed]
    place = round(len(hay) * depth / 100)
    prompt = [*before, *hay[:place], *needle, *hay[place:], *after]
    return NeedleItem(prompt, codes, len(before) + place + len(line_break) + len(lead))


def draw_codes(tokenizer: Tokenizer, rng: random.Random, count: int) -> list[list[int]]:
    """Orders of the same digits, as ids of equally many tokens."""
    digits = rng.sample("0123456789", CODE_DIGITS)
    orders = ["".join(order) for order in permutations(digits)]
    rng.shuffle(orders)
    by_tokens: dict[int, list[list[int]]] = {}
    for ids in tokenizer.encode_all(orders):
        alike = by_tokens.setdefault(len(ids), [])
        alike.append(ids)
        if len(alike) == count:
            return alike
    # 1 to CODE_DIGITS tokens share 120 orders, and MOST_OPTIONS is less than a fifth of them.
    raise AssertionError(f"no {count} codes of one length")


def score_options(model: Transformer, item: NeedleItem) -> list[Score]:
    """Log-likelihood of each option after the prompt; one pass over the prompt serves them all."""
    device = model.lm_head.weight.device
    prompt_BT = torch.tensor([item.prompt], device=device)
    seen, answer = len(item.prompt), len(item.options[0])
    with evaluating(model):
        cache = model.new_cache(torch.ones(1, seen + answer - 1, dtype=torch.bool, device=device))
        first_BTD = model(prompt_BT, cache=cache)[:, -1:]
        scores = []
        for option in item.options:
            hidden_BTD = first_BTD
            if answer > 1:
                # What the option before left behind the prompt is written over.
                cache.seen = seen
                rest_BTD = model(torch.tensor([option[:-1]], device=device), cache=cache)
                hidden_BTD = torch.cat((first_BTD, rest_BTD), dim=1)
            logprob_TV = model.logits(hidden_BTD)[0].float().log_softmax(-1)
            ids_T = torch.tensor(option, device=device)
            total = float(logprob_TV.gather(1, ids_T[:, None]).double().sum())
            greedy = bool((logprob_TV.argmax(1) == ids_T).all())
            scores.append(Score(total, answer, greedy))
    return scores


def judged(scores: Sequence[Score]) -> tuple[bool, bool]:
    """(choice, recall) of one item. A tie is no right answer: all alike must not score."""
    right, *wrong = scores
    return right.logprob > max(score.logprob for score in wrong), right.greedy


def by_guessing(right: int, items: int, chance: float) -> bool:
    """Whether a guesser gets so many right or more in over one run of twenty (binomial)."""
    likely = sum(
        math.comb(items, hits) * chance**hits * (1 - chance) ** (items - hits)
        for hits in range(right, items + 1)
    )
    return likely > 0.05


def needle_table(result: Mapping[str, Any]) -> str:
    """A block for each measure and language: rows depth, columns length, percent right.

    `~` marks what guessing explains; a guesser leaves one cell of twenty unmarked.
    """
    kinds = {
        "refuse": "",
        "plain": ", beyond it extrapolated",
        "ntk": f", beyond it NTK x {result['factor']:g}",
    }
    lines = [f"needle test, {result['items']} items a cell; trained window {result['trained']}"]
    lines[0] += kinds[result["beyond"]]
    languages = dict.fromkeys(cell["language"] for cell in result["cells"])
    for measure, language in product(("choice", "recall"), languages):
        chance = result["chance"] if measure == "choice" else None
        about = f"of {result['options']}, chance {chance:.1%}" if chance else "of every token"
        lines.append(f"{measure} {about}, {language}, %")
        cells = [cell for cell in result["cells"] if cell["language"] == language]
        lines += _block(cells, measure, chance)
    worst = result["worst"]
    lines.append(
        f"worst cell: {worst['language']}, {worst['length']} tokens, depth {worst['depth']}%: "
        f"choice {worst['choice']:.1%}, recall {worst['recall']:.1%}"
    )
    return "\n".join([*lines, "~ not better than guessing (95%)"])


def _block(cells: Sequence[Mapping[str, Any]], measure: str, chance: float | None) -> list[str]:
    lengths = sorted({cell["length"] for cell in cells})
    rows: dict[str, list[str]] = {}
    for depth in sorted({cell["depth"] for cell in cells}):
        rows[f"{depth}%"] = [
            _percent([c for c in cells if (c["length"], c["depth"]) == (n, depth)], measure, chance)
            for n in lengths
        ]
    rows["all"] = [
        _percent([c for c in cells if c["length"] == n], measure, chance) for n in lengths
    ]
    width = max(7, *(len(str(length)) + 1 for length in lengths))
    head = "  depth" + "".join(f"{length:>{width}} " for length in lengths)
    lines = [
        f"  {name:>5}" + "".join(f"{c:>{width + 1}}" for c in row) for name, row in rows.items()
    ]
    return [line.rstrip() for line in (head, *lines)]


def _percent(cells: Sequence[Mapping[str, Any]], measure: str, chance: float | None) -> str:
    """Of several cells together, with its mark or a blank."""
    items = sum(cell["items"] for cell in cells)
    right = round(sum(cell[measure] * cell["items"] for cell in cells))
    guessed = chance is not None and by_guessing(right, items, chance)
    return f"{100 * right / items:.1f}{'~' if guessed else ' '}"


def _window(model: Transformer, length: int, beyond: Beyond, factor: float) -> Transformer:
    """The model with room for `length` tokens."""
    config = model.config
    if length <= config.context:
        return model
    match beyond:
        case "plain":
            return with_window(model, length)
        case "ntk":
            base = ntk_base(config.rope_base, config.head_dim, config.context, length, factor)
            return with_window(model, length, base)
        case "refuse":
            raise UserError(
                f"{length} tokens are beyond the model's window of {config.context}; ask for at "
                "most that many, or run them with --beyond plain or --beyond ntk"
            )
