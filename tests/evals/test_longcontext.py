"""The needle test: a network that can only copy passes it, one that cannot see back guesses."""

import math
import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from indexlm.errors import UserError
from indexlm.evals.longcontext import (
    Grid,
    NeedleItem,
    build_item,
    by_guessing,
    cell_items,
    draw_haystacks,
    judged,
    needle_table,
    needle_test,
    score_options,
)
from indexlm.evals.scoring import Row, Score, score_rows
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer, with_window
from indexlm.tokens.tokenizer import ASSISTANT, EOS, USER, Tokenizer

# One thread: the networks here are too small to share out.
torch.set_num_threads(1)

Texts = dict[str, list[str]]

LOOKS = 3
"""The copier goes on as text went on after the same three tokens."""
CODE = 40
"""Width of a token's code: short enough for the slow pairs of one head."""
HEAD = 64
WINDOW = 128
BASE = 50_000.0
"""The slowest pairs turn by 2.5 radians at most in this window."""


@pytest.fixture
def by_language(texts: Texts) -> Texts:
    return {"zh": texts["zh_curated"] + texts["zh_ordinary"], "en": texts["en_noisy"]}


def copier(vocab_size: int, context: int) -> Transformer:
    """Two layers made by hand (an induction circuit, Olsson et al. 2022).

    The residual stream holds a constant, the code of the token, the codes of the three tokens
    before it, and the code of the token to be said. Heads of the first layer look one, two and
    three positions back by the phase of the fast RoPE pairs. A head of the second layer compares
    the last three tokens with the three before every position and takes the token there; it has
    the slow pairs, which hardly turn within the window.
    """
    config = ModelConfig(
        vocab_size=vocab_size,
        hidden=4 * HEAD,
        layers=2,
        heads=4,
        kv_heads=4,
        ffn=8,
        context=context,
        rope_base=BASE,
        head_scale=30.0,
    )
    generator = torch.Generator().manual_seed(3)
    codes = nn.functional.normalize(torch.randn(vocab_size, CODE, generator=generator), dim=1)
    # Three codes share the width of one: each is turned by a matrix of its own.
    turns = [torch.linalg.qr(torch.randn(CODE, CODE, generator=generator))[0] for _ in range(LOOKS)]
    token, *before, said = (slice(1 + n * CODE, 1 + (n + 1) * CODE) for n in range(LOOKS + 2))
    half, unit = HEAD // 2, torch.eye(CODE)
    fast, slow = torch.arange(half - CODE // 2), torch.arange(half - CODE // 2, half)
    match = torch.cat((slow, slow + half))
    speed = BASE ** (-2 * fast / HEAD)
    # The norms divide by the root mean square of a constant and 1 or 1 + LOOKS unit codes.
    scale = [math.sqrt(config.hidden / 2), math.sqrt(config.hidden / (2 + LOOKS))]
    look, find = (
        math.sqrt(sharpness * math.sqrt(HEAD)) / size for sharpness, size in zip((20, 40), scale)
    )
    model = Transformer(config)
    first, second = (block.self_attn for block in model.model.layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0 if parameter.dim() == 1 else 0.0)
        model.model.embed_tokens.weight[:, 0] = 1
        model.model.embed_tokens.weight[:, token] = codes
        model.lm_head.weight[:, said] = codes
        for back, there in enumerate(before, 1):
            start = (back - 1) * HEAD
            first.q_proj.weight[start + fast, 0] = look * torch.cos(-back * speed)
            first.q_proj.weight[start + fast + half, 0] = look * torch.sin(-back * speed)
            first.k_proj.weight[start + fast, 0] = look
            first.v_proj.weight[start : start + CODE, token] = unit / scale[0]
            first.o_proj.weight[there, start : start + CODE] = unit
        for turn, mine, theirs in zip(turns, (token, *before), before):
            second.q_proj.weight[match, mine] = find * turn
            second.k_proj.weight[match, theirs] = find * turn
        second.v_proj.weight[:CODE, token] = 3 * unit
        second.o_proj.weight[said, :CODE] = unit
    return model.eval()


def shares(result: dict, measure: str, length: int | None = None) -> list[float]:
    cells = [c for c in result["cells"] if length is None or c["length"] == length]
    return [cell[measure] for cell in cells]


@pytest.mark.parametrize("chat", [False, True])
def test_a_copier_finds_the_needle_wherever_it_stands(
    tokenizer: Tokenizer, by_language: Texts, chat: bool
) -> None:
    model = copier(tokenizer.vocab_size, WINDOW)
    grid = Grid((116, WINDOW), (0, 33, 67, 100), items=2)
    result = needle_test(model, tokenizer, by_language, grid, chat=chat)
    assert len(result["cells"]) == 2 * 4 * 2
    assert set(shares(result, "choice")) == {1.0} == set(shares(result, "recall"))
    # Without what stood before a token it only favours tokens that it has seen somewhere.
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
    blind = needle_test(model, tokenizer, by_language, grid, chat=chat)
    assert by_guessing(round(2 * sum(shares(blind, "choice"))), 32, blind["chance"])
    assert set(shares(blind, "recall")) == {0.0}


def test_beyond_the_window_stretching_finds_what_extrapolation_loses(
    tokenizer: Tokenizer, by_language: Texts
) -> None:
    """The slow pairs of the copier turn too far; NTK scaling brings them back."""
    model = copier(tokenizer.vocab_size, WINDOW)
    grid = Grid((WINDOW, 512), (0, 50, 100), items=3)
    plain, ntk = (
        needle_test(model, tokenizer, by_language, grid, beyond=beyond)
        for beyond in ("plain", "ntk")
    )
    inside = [cell for cell in plain["cells"] if cell["length"] == WINDOW]
    assert inside == [cell for cell in ntk["cells"] if cell["length"] == WINDOW]
    assert set(shares(ntk, "recall")) == {1.0}
    far = [c["recall"] for c in plain["cells"] if c["length"] == 512 and c["depth"] < 100]
    assert sum(far) / len(far) < 0.6
    assert plain["worst"]["length"] == 512
    assert [w["rope_base"] for w in plain["windows"]] == [BASE, BASE]
    assert ntk["windows"][0]["rope_base"] == BASE < ntk["windows"][1]["rope_base"]
    assert model.config.context == WINDOW
    with pytest.raises(UserError, match="512 tokens are beyond the model's window of 128"):
        needle_test(model, tokenizer, by_language, grid)


def naive(model: Transformer, item: NeedleItem) -> list[Score]:
    """Every option with its whole prompt, without a cache."""
    rows = [Row([*item.prompt, *option], len(item.prompt)) for option in item.options]
    return [
        Score(float(found.logprobs.sum()), len(found.logprobs), bool(found.greedy.all()))
        for found in score_rows(model, rows).scores
    ]


def test_a_cell_is_its_items_scored_naively_and_random_weights_guess(
    model: Transformer, tokenizer: Tokenizer, by_language: Texts
) -> None:
    longer = with_window(model, 72)
    grid = Grid((64, 72), (0, 50, 100), items=10, options=4, seed=7)
    result = needle_test(longer, tokenizer, by_language, grid)
    hays = {name: draw_haystacks(tokenizer, name, by_language[name], grid) for name in by_language}
    for cell in result["cells"]:
        hay = hays[cell["language"]]
        answers = []
        for item in cell_items(tokenizer, hay, grid, cell["length"], cell["depth"]):
            ours, theirs = score_options(longer, item), naive(longer, item)
            expected = pytest.approx([score.logprob for score in theirs], abs=1e-4)
            assert [score.logprob for score in ours] == expected
            assert [(s.tokens, s.greedy) for s in ours] == [(s.tokens, s.greedy) for s in theirs]
            answers.append(judged(theirs))
        assert cell["choice"] == sum(choice for choice, _ in answers) / 10
        assert cell["recall"] == sum(recall for _, recall in answers) / 10
    right, items = round(10 * sum(shares(result, "choice"))), 120
    assert abs(right - items / 4) < 2.58 * math.sqrt(items * 3 / 16)
    assert min(right, items - right) > 0


@settings(max_examples=60, deadline=None, database=None)
@given(
    language=st.sampled_from(["zh", "en"]),
    length=st.integers(140, 700),
    depth=st.integers(0, 100),
    options=st.integers(2, 16),
    chat=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_an_item_has_its_length_its_depth_and_one_right_answer(
    tokenizer: Tokenizer,
    language: str,
    length: int,
    depth: int,
    options: int,
    chat: bool,
    seed: int,
) -> None:
    documents = {"zh": ["山高路远，行人稀少。", "水声清澈。"], "en": ["The river was wide.", "x"]}
    grid = Grid((length,), (depth,), items=1, seed=seed)
    (hay,) = draw_haystacks(tokenizer, language, documents[language], grid)
    rng = random.Random(seed)
    item = build_item(tokenizer, hay, rng, length, depth, options, chat=chat)
    right, at = item.options[0], item.at
    assert {len(item.prompt) + len(option) for option in item.options} == {length}
    assert len({tuple(option) for option in item.options}) == options
    assert len({tuple(sorted(option)) for option in item.options}) == 1
    assert item.prompt[at : at + len(right)] == right
    text = tokenizer.decode(item.prompt)
    for option in item.options[1:]:
        assert tokenizer.decode(option) not in text
    # The prompt ends as the needle stands before its code, so a copy answers it.
    lead = tokenizer.encode("的暗号是" if language == "zh" else " is ")
    assert item.prompt[at - len(lead) : at] == lead == item.prompt[-len(lead) :]

    # The needle alone moves: before it stands its share of the haystack.
    def at_depth(percent: int) -> NeedleItem:
        same = random.Random(seed)
        return build_item(tokenizer, hay, same, length, percent, options, chat=chat)

    first, last = at_depth(0), at_depth(100)
    room = last.at - first.at
    assert at - first.at == round(room * depth / 100)
    assert item.prompt[1 : 1 + at - first.at] == hay.ids[: at - first.at]
    assert last.prompt[1 : 1 + room] == hay.ids[:room]
    assert sorted(item.prompt) == sorted(first.prompt) == sorted(last.prompt)
    controls = [token for token in item.prompt if token < 5]
    assert controls == ([USER, ASSISTANT] if chat else [EOS])


def test_a_made_up_name_is_none_of_the_text(tokenizer: Tokenizer, by_language: Texts) -> None:
    grid = Grid((128,), items=1)

    def name_in(documents: Sequence[str]) -> str:
        (hay,) = draw_haystacks(tokenizer, "en", documents, grid)
        item = build_item(tokenizer, hay, random.Random(5), 128, 50, 4)
        return tokenizer.decode(item.prompt).split("The password of ")[-1].removesuffix(" is ")

    taken = name_in(by_language["en"])
    assert taken.isalpha() and taken.istitle()
    assert name_in([*by_language["en"], f"They say {taken} is far away."]) != taken


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that anything makes while it is on."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.numel())
        return made


def test_no_tensor_grows_with_the_square_of_the_length(
    model: Transformer, tokenizer: Tokenizer, by_language: Texts
) -> None:
    length = 1500
    (hay,) = draw_haystacks(tokenizer, "en", by_language["en"], Grid((length,), items=1))
    item = build_item(tokenizer, hay, random.Random(1), length, 50, 4)
    with LargestTensor() as largest:
        score_options(with_window(model, length), item)
    assert 0 < largest.size < length**2 / 4
    with LargestTensor() as largest, torch.no_grad():  # a padded first pass does need a mask
        cache = with_window(model, length).new_cache(torch.arange(length)[None] > 0)
        with_window(model, length)(torch.tensor([item.prompt]), cache=cache)
    assert largest.size > length**2 / 2


@pytest.mark.parametrize(
    ("right", "items", "chance", "guessed"),
    # P(X >= 4 of 8) at 1/8 is 1.1%, P(X >= 3) 6.7%; P(X >= 5 of 10) at 1/4 is 7.8%, of 6 2.0%.
    [(4, 8, 0.125, False), (3, 8, 0.125, True), (5, 10, 0.25, True), (6, 10, 0.25, False)],
)
def test_what_guessing_explains(right: int, items: int, chance: float, guessed: bool) -> None:
    assert by_guessing(right, items, chance) is guessed
    assert by_guessing(0, items, chance)


def test_a_tie_is_no_right_answer() -> None:
    same = Score(-3.0, 2, True)
    assert judged([same, same]) == (False, True)
    assert judged([same, Score(-3.5, 2, False)]) == (True, True)
    assert judged([Score(-3.5, 2, False), same]) == (False, False)


def test_the_table_marks_what_guessing_explains_and_names_the_worst_cell() -> None:
    def cell(length: int, depth: int, choice: float, recall: float) -> dict:
        place = {"language": "en", "length": length, "depth": depth, "items": 8}
        return place | {"choice": choice, "recall": recall}

    cells = [cell(256, 0, 1.0, 0.75), cell(256, 50, 0.5, 0), cell(1024, 0, 0.25, 0)]
    cells.append(cell(1024, 50, 0.375, 0.125))
    about = {"chance": 0.125, "options": 8, "items": 8, "chat": False, "trained": 256}
    about |= {"beyond": "ntk", "factor": 8.0, "windows": []}
    table = needle_table(about | {"cells": cells, "worst": cells[2]})
    assert table.split("\n") == [
        "needle test, 8 items a cell; trained window 256, beyond it NTK x 8",
        "choice of 8, chance 12.5%, en, %",
        "  depth    256    1024",
        "     0%  100.0    25.0~",
        "    50%   50.0    37.5~",
        "    all   75.0    31.2",
        "recall of every token, en, %",
        "  depth    256    1024",
        "     0%   75.0     0.0",
        "    50%    0.0    12.5",
        "    all   37.5     6.2",
        "worst cell: en, 1024 tokens, depth 0%: choice 25.0%, recall 0.0%",
        "~ not better than guessing (95%)",
    ]


def test_what_cannot_be_tested_is_refused(
    model: Transformer, tokenizer: Tokenizer, by_language: Texts
) -> None:
    longer = with_window(model, 200)
    with pytest.raises(UserError, match=r"30 tokens have no room .* which take \d+"):
        needle_test(longer, tokenizer, by_language, Grid((30,), items=1))
    with pytest.raises(UserError, match="language 'fr'"):
        needle_test(longer, tokenizer, {"fr": ["Bonjour."]}, Grid((128,)))
    with pytest.raises(UserError, match="no text"):
        needle_test(longer, tokenizer, {}, Grid((128,)))
    with pytest.raises(UserError, match="no zh text"):
        needle_test(longer, tokenizer, {"zh": [""]}, Grid((128,)))
    for grid, message in (
        ({"lengths": ()}, "a length"),
        ({"lengths": (64,), "items": 0}, "one item"),
        ({"lengths": (64,), "depths": (0, 101)}, "depth 101"),
        ({"lengths": (64,), "options": 1}, "1 options"),
    ):
        with pytest.raises(UserError, match=message):
            Grid(**grid)
