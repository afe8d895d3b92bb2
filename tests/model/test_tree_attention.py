"""Every sequence of a packed tree against a forward pass over it alone.

Shape suffixes: B rows, T packed positions, S past and packed positions, P the past, D width.
"""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from indexlm.model.attention import LayerCache, Sight
from indexlm.model.rope import rotations
from indexlm.model.transformer import Transformer
from indexlm.model.tree_attention import BLOCK, Segment, Tree

Branch = tuple[int, list["Branch"]]
"""How many ids a segment has, and what goes on from it."""

SMALL: list[Branch] = [(5, [(3, []), (1, []), (4, [(2, []), (6, [])])]), (7, []), (2, [(1, [])])]
# Larger than a block at the root and below it.
LARGE: list[Branch] = [(9, [(30, [(10, []) for _ in range(12)]), (20, []), (3, [])]), (40, [])]


def packed(branches: list[Branch], depth: int = 0, at: int = 0) -> list[Segment]:
    segments: list[Segment] = []
    for length, children in branches:
        below = packed(children, depth + length, at + length)
        end = below[-1].stop if below else at + length
        segments += [Segment(at, at + length, end, depth), *below]
        at = end
    return segments


def draw_ids(count: int) -> Tensor:
    return torch.randint(5, 512, (1, count), generator=torch.Generator().manual_seed(count))


def path(segments: list[Segment], last: int) -> list[int]:
    """Positions of the pack from the root of a segment to its end."""
    above = [s for s in segments if s.start <= segments[last].start < s.end]
    return [position for s in above for position in range(s.start, s.stop)]


def alone(model: Transformer, past_BP: Tensor, ids_BT: Tensor, segments: list[Segment]) -> Tensor:
    """[T, D]: each segment at the end of its own sequence, which is read by itself."""
    parts = []
    for number, segment in enumerate(segments):
        whole_BT = torch.cat((past_BP, ids_BT[:, path(segments, number)]), dim=1)
        parts.append(model(whole_BT)[0, segment.start - segment.stop :])
    return torch.cat(parts)


def together(model: Transformer, past_BP: Tensor, ids_BT: Tensor, tree: Tree) -> Tensor:
    cache = None
    if past_BP.shape[1]:
        cache = model.new_cache(torch.ones_like(past_BP, dtype=torch.bool))
        model(past_BP, cache=cache)
    return model(ids_BT, cache=cache, tree=tree)[0]


@pytest.mark.parametrize("name", ["model", "grouped_model"])
@pytest.mark.parametrize("past", [0, 12])
@pytest.mark.parametrize("branches", [SMALL, LARGE, SMALL * 8])
def test_each_sequence_is_read_as_if_alone(
    request: pytest.FixtureRequest, name: str, past: int, branches: list[Branch]
) -> None:
    model = copy.deepcopy(request.getfixturevalue(name)).double()
    segments = packed(branches)
    ids_BT, past_BP = draw_ids(segments[-1].stop), draw_ids(past)
    with torch.no_grad():
        expected_TD = alone(model, past_BP, ids_BT, segments)
        found_TD = together(model, past_BP, ids_BT, Tree(segments))
        single_TD = together(model.float(), past_BP, ids_BT, Tree(segments))
    assert found_TD.shape == expected_TD.shape
    assert (found_TD - expected_TD).abs().max() < 1e-11
    assert (single_TD - expected_TD).abs().max() < 1e-4


any_branches = st.recursive(
    st.lists(st.tuples(st.integers(1, 12), st.just([])), min_size=1, max_size=4),
    lambda inner: st.lists(st.tuples(st.integers(1, 12), inner), min_size=1, max_size=4),
    max_leaves=30,
)


@settings(max_examples=40, deadline=None)
@given(branches=any_branches, past=st.integers(0, 9))
def test_any_tree(grouped_model: Transformer, branches: list[Branch], past: int) -> None:
    segments = packed(branches)
    tree = Tree(segments)
    if past + tree.depth > grouped_model.config.context:
        return
    ids_BT, past_BP = draw_ids(segments[-1].stop), draw_ids(past)
    with torch.no_grad():
        expected_TD = alone(grouped_model, past_BP, ids_BT, segments)
        found_TD = together(grouped_model, past_BP, ids_BT, tree)
    assert (found_TD - expected_TD).abs().max() < 1e-4


@pytest.mark.parametrize("branches", [SMALL, LARGE])
@pytest.mark.parametrize("mistake", ["sees its sibling", "stands after its sibling", "no parent"])
def test_the_comparison_tells_mistakes_apart(
    model: Transformer, branches: list[Branch], mistake: str
) -> None:
    segments = packed(branches)
    ids_BT, past_BP = draw_ids(segments[-1].stop), draw_ids(3)
    first, second, third = segments[:3]
    wrong = list(segments)
    match mistake:
        case "sees its sibling":
            wrong[1] = second._replace(end=segments[-1].stop)
        case "stands after its sibling":
            wrong[-1] = segments[-1]._replace(depth=segments[-1].depth + 1)
        case "no parent":
            wrong[0] = first._replace(end=third.start)
    with torch.no_grad():
        expected_TD = alone(model, past_BP, ids_BT, segments)
        found_TD = together(model, past_BP, ids_BT, Tree(wrong))
    assert (found_TD - expected_TD).abs().max() > 0.01


@pytest.mark.parametrize("name", ["model", "grouped_model"])
@pytest.mark.parametrize("past", [0, 12])
@pytest.mark.parametrize("branches", [SMALL, LARGE])
def test_the_mask_of_other_devices_says_the_same(
    request: pytest.FixtureRequest, name: str, past: int, branches: list[Branch]
) -> None:
    """One layer of attention, taken apart and with one mask."""
    model: Transformer = request.getfixturevalue(name)
    config, tree = model.config, Tree(packed(branches))
    length = tree.segments[-1].stop
    generator = torch.Generator().manual_seed(2)
    x_BTD = torch.randn(1, length, config.hidden, generator=generator)
    shape = (1, config.kv_heads, past, config.head_dim)
    cache = LayerCache(*(torch.randn(shape, generator=generator) for _ in range(2)))
    device = torch.device("cpu")
    cos, sin = rotations(tree.positions(past, device), config.head_dim, config.rope_base)
    mask_BTS = tree.mask(past, device)
    additive_BTS = torch.zeros(mask_BTS.shape).masked_fill(~mask_BTS, -torch.inf)
    sights = [
        Sight(cos[:, None], sin[:, None], None, start=past, tree=True, looks=tree.looks(cos.dtype)),
        Sight(cos[:, None], sin[:, None], additive_BTS, start=past, tree=True),
    ]
    attention = model.model.layers[1].self_attn
    with torch.no_grad():
        apart, masked = (attention(x_BTD, sight, cache if past else None) for sight in sights)
    assert apart.abs().max() > 0.1
    assert (apart - masked).abs().max() < 1e-5


def test_looks_cover_each_position_once_and_small_subtrees_together() -> None:
    small, large = (Tree(packed(branches)).looks(torch.float32) for branches in (SMALL, LARGE))
    assert [(look.queries, look.keys) for look in small.own] == [(slice(0, 31), slice(0, 31))]
    assert small.above == []
    covered = [p for look in large.own for p in range(look.queries.start, look.queries.stop)]
    assert covered == list(range(222))
    assert len(large.own) < len(packed(LARGE))
    assert all(look.mask_TT is None or len(look.mask_TT) <= BLOCK for look in large.own)
    # To the root with 182 positions below it, and to its first child with 120 more than a block.
    assert [look.keys for look in large.above] == [slice(0, 9), slice(9, 39)]


def test_the_cache_stays_as_it_is(model: Transformer) -> None:
    past_BP, tree = draw_ids(8), Tree(packed(SMALL))
    cache = model.new_cache(torch.ones(1, 20, dtype=torch.bool))
    with torch.no_grad():
        model(past_BP, cache=cache)
        before = copy.deepcopy(cache.layers)
        model(draw_ids(31), cache=cache, tree=tree)
    assert cache.seen == 8
    for layer, old in zip(cache.layers, before):
        assert torch.equal(layer.keys_BHSN, old.keys_BHSN)
        assert torch.equal(layer.values_BHSN, old.values_BHSN)


def test_a_tree_may_be_larger_than_the_window_but_not_deeper(model: Transformer) -> None:
    wide, deep = Tree(packed([(60, [])] * 3)), Tree(packed([(60, [(5, [])])]))
    with torch.no_grad():
        assert model(draw_ids(180), tree=wide).shape == (1, 180, 64)
        with pytest.raises(AssertionError, match="65 positions in a window of 64"):
            model(draw_ids(65), tree=deep)


def test_bfloat16(grouped_model: Transformer) -> None:
    segments = packed(LARGE)
    ids_BT, past_BP = draw_ids(segments[-1].stop), draw_ids(12)
    half = copy.deepcopy(grouped_model).bfloat16()
    with torch.no_grad():
        exact_TD = alone(grouped_model, past_BP, ids_BT, segments)
        plain_TD = alone(half, past_BP, ids_BT, segments)
        found_TD = together(half, past_BP, ids_BT, Tree(segments))
    assert found_TD.dtype == torch.bfloat16
    # No further from the exact numbers than the plain pass in this precision.
    assert (found_TD - exact_TD).square().mean() < 1.5 * (plain_TD - exact_TD).square().mean()
