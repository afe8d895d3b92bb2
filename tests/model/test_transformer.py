"""The forward pass against an independent statement of it, and the ways of calling it.

Shape suffixes: B rows, T positions, D width, H heads, N head width, V vocabulary.
"""

import copy
import itertools
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from indexlm.model.attention import (
    QUERIES,
    Sight,
    mask_within_documents,
    starts_of_documents,
)
from indexlm.model.rope import rotations
from indexlm.model.transformer import Transformer, with_window

IDS = torch.randint(5, 512, (24,), generator=torch.Generator().manual_seed(1))


def plain_logits(
    model: Transformer,
    ids_T: Tensor,
    *,
    base: float = 10000.0,
    eps: float = 1e-6,
    pairs: str = "halves",
    fold: str = "rows",
) -> Tensor:
    """The published architecture in float64: loops over heads and positions, no shared code."""
    config = model.config
    weights = {name: p.detach().double() for name, p in model.named_parameters()}
    width = config.hidden // config.heads
    group = config.heads // config.kv_heads

    def norm(x_D: Tensor, name: str) -> Tensor:
        return x_D / torch.sqrt((x_D * x_D).mean() + eps) * weights[name]

    def turn(x_N: Tensor, position: int) -> Tensor:
        out_N = x_N.clone()
        for j in range(width // 2):
            a, b = (j, j + width // 2) if pairs == "halves" else (2 * j, 2 * j + 1)
            angle = position * base ** (-2 * j / width)
            cos, sin = math.cos(angle), math.sin(angle)
            out_N[a] = x_N[a] * cos - x_N[b] * sin
            out_N[b] = x_N[b] * cos + x_N[a] * sin
        return out_N

    x_TD = weights["model.embed_tokens.weight"][ids_T]
    for layer in range(config.layers):
        name = f"model.layers.{layer}."
        attention = {p: weights[f"{name}self_attn.{p}_proj.weight"] for p in "qkvo"}
        normed = [norm(x_D, f"{name}input_layernorm.weight") for x_D in x_TD]
        heads = []
        for head in range(config.heads):
            own = slice(head * width, (head + 1) * width)
            shared = slice(head // group * width, (head // group + 1) * width)
            q = [turn(attention["q"][own] @ n_D, t) for t, n_D in enumerate(normed)]
            k = [turn(attention["k"][shared] @ n_D, t) for t, n_D in enumerate(normed)]
            v = [attention["v"][shared] @ n_D for n_D in normed]
            seen = []
            for t in range(len(normed)):
                scores = torch.stack([q[t] @ k[s] / math.sqrt(width) for s in range(t + 1)])
                weight = scores.exp() / scores.exp().sum()
                seen.append(sum(weight[s] * v[s] for s in range(t + 1)))
            heads.append(torch.stack(seen))
        x_TD = x_TD + torch.cat(heads, dim=1) @ attention["o"].T
        gate, up, down = (weights[f"{name}mlp.{p}_proj.weight"] for p in ("gate", "up", "down"))
        normed_TD = torch.stack([norm(x, f"{name}post_attention_layernorm.weight") for x in x_TD])
        gated = normed_TD @ gate.T
        x_TD = x_TD + (gated / (1 + torch.exp(-gated)) * (normed_TD @ up.T)) @ down.T
    hidden_TD = torch.stack([norm(x_D, "model.norm.weight") for x_D in x_TD])
    head_VD = weights["lm_head.weight"]
    if fold == "rows":
        head_VD = head_VD / head_VD.pow(2).sum(1, keepdim=True).sqrt()
    elif fold == "columns":
        head_VD = head_VD / head_VD.pow(2).sum(0, keepdim=True).sqrt()
    return hidden_TD @ head_VD.T * config.head_scale


@torch.no_grad()
def logits_of(model: Transformer, ids_T: Tensor) -> Tensor:
    return model.logits(model(ids_T[None]))[0]


def furthest(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())


@pytest.mark.parametrize("name", ["model", "grouped_model"])
def test_the_forward_pass_agrees_with_a_plain_statement_of_it(
    name: str, request: pytest.FixtureRequest
) -> None:
    model: Transformer = request.getfixturevalue(name)
    assert furthest(logits_of(model, IDS), plain_logits(model, IDS)) < 1e-5


@pytest.mark.parametrize(
    "mistake",
    [
        {"fold": "none"},
        {"fold": "columns"},
        {"pairs": "neighbours"},
        {"eps": 1e-5},
        {"base": 320000.0},
    ],
)
def test_the_agreement_would_notice_each_known_mistake(
    model: Transformer, mistake: dict[str, float]
) -> None:
    ids_T = IDS[:12]
    assert furthest(logits_of(model, ids_T), plain_logits(model, ids_T, **mistake)) > 1e-3


def test_grouped_query_attention_equals_repeated_keys_and_values(
    model: Transformer, grouped_model: Transformer
) -> None:
    weights = dict(grouped_model.state_dict())
    for name, value in weights.items():
        if "k_proj" in name or "v_proj" in name:
            by_head = value.unflatten(0, (2, 16))
            weights[name] = by_head.repeat_interleave(2, dim=0).flatten(0, 1)
    repeated = Transformer(model.config)
    repeated.load_state_dict(weights)
    assert furthest(logits_of(repeated, IDS), logits_of(grouped_model, IDS)) < 2e-6


def test_a_later_token_changes_nothing_before_it(model: Transformer) -> None:
    changed = IDS.clone()
    changed[15] = 5 if IDS[15] != 5 else 6
    ours, theirs = logits_of(model, IDS), logits_of(model, changed)
    assert torch.equal(ours[:15], theirs[:15])
    assert furthest(ours[15:], theirs[15:]) > 0.1


lengths = st.lists(st.integers(1, 12), min_size=1, max_size=5)


@given(lengths, st.integers(0, 4))
@settings(max_examples=30, deadline=None, database=None)
def test_packed_documents_are_each_document_alone(
    model: Transformer, sizes: list[int], padding: int
) -> None:
    borders = [0, *torch.tensor(sizes).cumsum(0).tolist()]
    total = borders[-1]
    ids_T = torch.cat((IDS, IDS.flip(0), IDS))[:total]
    documents_T = torch.full((total + padding,), -1)
    positions_T = torch.zeros(total + padding, dtype=torch.long)
    for number, (start, stop) in enumerate(pairwise(borders)):
        documents_T[start:stop] = number
        positions_T[start:stop] = torch.arange(stop - start)
    padded_T = torch.cat((ids_T, torch.zeros(padding, dtype=torch.long)))
    with torch.no_grad():
        packed_TD = model(
            padded_T[None], positions_BT=positions_T[None], documents_BT=documents_T[None]
        )[0]
        assert bool(packed_TD.isfinite().all())
        for start, stop in pairwise(borders):
            alone_TD = model(ids_T[None, start:stop])[0]
            assert furthest(packed_TD[start:stop], alone_TD) < 1e-5


@pytest.mark.parametrize("name", ["model", "grouped_model"])
def test_gradients_of_packed_documents_are_those_of_each_alone(
    name: str, request: pytest.FixtureRequest
) -> None:
    """Alone they go through torch's own attention, all in float64. The longest has two blocks of
    queries."""
    model = with_window(copy.deepcopy(request.getfixturevalue(name)).double(), 256)
    sizes = [QUERIES + 7, 1, 20]
    ids = torch.randint(5, 512, (sum(sizes),), generator=torch.Generator().manual_seed(2))
    documents_T = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    positions_T = torch.cat([torch.arange(size) for size in sizes])
    weights = list(model.parameters())[:-1]
    assert max(sizes) > QUERIES

    def gradients(hidden: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(hidden.square().sum() + hidden.sum(), weights, allow_unused=True)

    def packed(documents: Tensor) -> tuple[Tensor, ...]:
        hidden = model(ids[None], positions_BT=positions_T[None], documents_BT=documents[None])
        return gradients(hidden)

    alone = [gradients(model(part[None])) for part in ids.split(sizes)]
    for ours, theirs in zip(packed(documents_T), zip(*alone), strict=True):
        torch.testing.assert_close(ours, sum(theirs), rtol=1e-9, atol=1e-9)
    leaking = packed(torch.zeros_like(documents_T))
    assert furthest(leaking[1], sum(each[1] for each in alone)) > 1


@torch.no_grad()
def test_the_mask_of_other_devices_hides_what_the_processor_skips(model: Transformer) -> None:
    documents_BT = torch.tensor([[0] * 5 + [1] * 9 + [-1] * 10, [3] * 1 + [4] * 22 + [3] * 1])
    starts_BT = starts_of_documents(documents_BT)
    mask = mask_within_documents(starts_BT)
    for row, documents in enumerate(documents_BT.tolist()):
        for t, s in itertools.product(range(24), repeat=2):
            # The last of the second row is a document of its own: a number is used again.
            seen = s <= t and len(set(documents[s : t + 1])) == 1
            assert bool(mask[row, 0, t, s]) == seen, (row, t, s)
    x_BTD = torch.randn(2, 24, 64, generator=torch.Generator().manual_seed(4))
    cos, sin = (each[:, None] for each in rotations(torch.arange(24)[None], 16, 1e4))
    additive = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
    attention = model.model.layers[0].self_attn
    by_mask = attention(x_BTD, Sight(cos, sin, additive), None)
    by_starts = attention(x_BTD, Sight(cos, sin, None, starts_BT=starts_BT), None)
    torch.testing.assert_close(by_mask, by_starts, rtol=0, atol=1e-4)


def test_packing_without_borders_would_be_noticed(model: Transformer) -> None:
    positions_T = torch.cat((torch.arange(12), torch.arange(12)))
    with torch.no_grad():
        packed_TD = model(IDS[None], positions_BT=positions_T[None])[0]
        alone_TD = model(IDS[None, 12:])[0]
    assert furthest(packed_TD[12:], alone_TD) > 0.1


@given(st.lists(st.integers(1, 9), min_size=1, max_size=24))
@settings(max_examples=30, deadline=None, database=None)
def test_a_cache_filled_in_any_steps_gives_the_full_forward(
    model: Transformer, steps: list[int]
) -> None:
    with torch.no_grad():
        cache = model.new_cache(torch.ones(1, len(IDS), dtype=torch.bool))
        parts = []
        for size in [*steps, len(IDS)]:
            part = IDS[None, cache.seen : cache.seen + size]
            if part.shape[1]:
                parts.append(model(part, cache=cache))
        assert cache.seen == len(IDS)
        assert furthest(torch.cat(parts, dim=1), model(IDS[None])) < 1e-5


@given(st.lists(st.integers(1, 16), min_size=1, max_size=5), st.integers(1, 6))
@settings(max_examples=30, deadline=None, database=None)
def test_left_padded_rows_go_on_as_each_row_alone(
    model: Transformer, sizes: list[int], new: int
) -> None:
    longest = max(sizes)
    rows = [IDS.roll(number)[: size + new] for number, size in enumerate(sizes)]
    padded_BT = torch.stack([torch.cat((IDS.new_zeros(longest + new - len(r)), r)) for r in rows])
    visible_BT = torch.stack([torch.arange(longest + new) >= longest - size for size in sizes])
    positions_BT = (visible_BT.long().cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        cache = model.new_cache(visible_BT)
        parts = []
        for start, stop in pairwise([0, *range(longest, longest + new + 1)]):
            here = slice(start, stop)
            parts.append(model(padded_BT[:, here], positions_BT=positions_BT[:, here], cache=cache))
        hidden_BTD = torch.cat(parts, dim=1)
        assert bool(hidden_BTD.isfinite().all())
        for hidden_TD, row in zip(hidden_BTD, rows):
            assert furthest(hidden_TD[-len(row) :], model(row[None])[0]) < 1e-5


def test_more_positions_than_the_window_are_refused(model: Transformer) -> None:
    with pytest.raises(AssertionError, match="65 positions in a window of 64"):
        model(torch.zeros(1, 65, dtype=torch.long))
