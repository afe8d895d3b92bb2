"""Rows that begin alike, planned so that what they share goes through the network once.

The inputs of all rows become a prefix tree (Morrison 1968), which is cut into passes of at most so
many positions. Where a subtree fits into one pass, its shared beginnings are packed with it; where
it does not, its beginning is a pass of its own, whose keys and values the passes below it look
back at. Passes come depth-first, so that one chain of beginnings, no longer than the longest row,
is all that is kept. Nothing here touches the network.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from indexlm.model.tree_attention import Segment

SHORTEST = 4
"""Shorter common beginnings than this stay with each row. All documents begin with one end mark;
4 to 32 took the same time."""


class Window(NamedTuple):
    """Inputs `start` to `end` of one row; the targets from `scored` to `end` are taken."""

    row: int
    start: int
    scored: int
    end: int


@dataclass(frozen=True)
class Targets:
    """What is asked of one pass.

    `positions` [U] of the pass, in rising order; target n is asked of `positions[of[n]]`, in
    rising order too, and answered in `slots[n]` of all scored ids of all rows, one after another.
    """

    positions: np.ndarray
    of: np.ndarray
    ids: np.ndarray
    slots: np.ndarray


@dataclass(frozen=True)
class Pass:
    """One pass through the network: a packed tree of `ids` [T] after a past of `seen` positions.

    `kept`: it is one segment, and passes to come look back at it.
    """

    ids: np.ndarray
    segments: list[Segment]
    seen: int
    kept: bool
    targets: Targets


@dataclass(frozen=True)
class Plan:
    """`slots` scored ids in all; `past` positions are kept at most. `computed` positions go
    through the network, of `naive` when each row goes by itself."""

    passes: list[Pass]
    slots: int
    past: int
    computed: int
    naive: int


@dataclass
class _Node:
    """Positions `start` to `stop` of some sequences, and nodes that go on from there.

    Nodes are listed depth-first; `end` is the number of the first one that is no descendant, and
    `size` counts the positions of the node and its descendants. `asked`: (window, from, to).
    """

    start: int
    stop: int
    ids: np.ndarray
    parent: int
    end: int = 0
    size: int = 0
    asked: list[tuple[int, int, int]] = field(default_factory=list)


def make_plan(
    rows: Sequence[tuple[list[int], int]], context: int, batch_tokens: int, *, share: bool
) -> Plan:
    """Passes of at most `batch_tokens` positions, or one segment, that score all rows.

    A row is ids, and the first of them to score. One longer than `context` goes in windows.
    Without `share` only identical rows are one.
    """
    assert all(1 <= first <= len(ids) for ids, first in rows)
    windows = [
        window
        for number, (ids, first) in enumerate(rows)
        for window in cut_windows(number, len(ids) - 1, first - 1, context)
    ]
    ids_of_row = [np.array(ids) for ids, _ in rows]
    nodes, leaf_of_window = _share(windows, ids_of_row) if share else _separate(windows, ids_of_row)
    for number, window in enumerate(windows):
        at = leaf_of_window[number]
        low, high = window.scored - window.start, window.end - window.start
        while at >= 0 and nodes[at].stop > low:
            node = nodes[at]
            if node.start < high:
                node.asked.append((number, max(low, node.start), min(high, node.stop)))
            at = node.parent
    slots = [0, *accumulate(len(ids) - first for ids, first in rows)]
    # What is added to an input's number to find where its target is answered.
    shifts = [slots[window.row] - (rows[window.row][1] - 1) for window in windows]
    writer = _Writer(nodes, windows, ids_of_row, shifts)
    passes = list(_passes(writer, batch_tokens))
    return Plan(
        passes,
        slots=slots[-1],
        past=max((one.seen + len(one.ids) for one in passes if one.kept), default=0),
        computed=sum(len(one.ids) for one in passes),
        naive=sum(window.end - window.start for window in windows),
    )


def cut_windows(row: int, inputs: int, first: int, context: int) -> Iterator[Window]:
    """Windows over a row of `inputs` positions that score each one from `first` on exactly once.

    What does not fit in one window is scored half a window at a time after a full first one: each
    position sees all that stands before it, or at least half a window.
    """
    scored = first
    while scored < inputs:
        end = min(inputs, max(scored + context // 2, context))
        yield Window(row, max(0, end - context), scored, end)
        scored = end


def _separate(
    windows: Sequence[Window], ids: Sequence[np.ndarray]
) -> tuple[list[_Node], list[int]]:
    """A node for each window; windows that also score the same are one."""
    nodes: list[_Node] = []
    known: dict[tuple[bytes, int], int] = {}
    leaves = []
    for row, start, scored, end in windows:
        key = (ids[row][start : end + 1].tobytes(), scored - start)
        if key not in known:
            known[key] = len(nodes)
            size = end - start
            nodes.append(_Node(0, size, ids[row][start:end], -1, len(nodes) + 1, size))
        leaves.append(known[key])
    return nodes, leaves


def _share(windows: Sequence[Window], ids: Sequence[np.ndarray]) -> tuple[list[_Node], list[int]]:
    """The prefix tree of all windows, and in which leaf each one ends or is contained."""
    # Numbers whose first byte is the highest sort as bytes do.
    keys = [ids[w.row][w.start : w.end].astype(">u4").tobytes() for w in windows]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    sequences: list[np.ndarray] = []
    common: list[int] = []
    held_by = [0] * len(windows)
    for place, number in enumerate(order):
        held_by[number] = len(sequences)
        following = keys[order[place + 1]] if place + 1 < len(order) else b""
        # A sequence that another one begins with stands directly before it, and is part of it.
        if not following.startswith(keys[number]):
            window = windows[number]
            sequences.append(ids[window.row][window.start : window.end])
            if len(sequences) > 1:
                common.append(_common(*sequences[-2:]))
    nodes, leaves = _grow(sequences, np.array(common, dtype=int))
    return nodes, [leaves[held] for held in held_by]


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """How many ids two sequences begin with alike."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


def _grow(sequences: Sequence[np.ndarray], common: np.ndarray) -> tuple[list[_Node], list[int]]:
    """The tree of sorted sequences, none of which another begins with, and their leaves.

    `common[i]` ids are shared by sequences i and i + 1.
    """
    nodes: list[_Node] = []
    leaves = [0] * len(sequences)
    # Of sequences `low` to `high`, what follows the first `depth` ids goes below node `parent`.
    work = [(0, len(sequences), 0, -1)] if sequences else []
    while work:
        low, high, depth, parent = work.pop()
        between = common[low : high - 1]
        short = np.flatnonzero(between < depth + SHORTEST)
        if len(short):
            borders = [low, *(low + 1 + short).tolist(), high]
            pieces = [(left, right, depth, parent) for left, right in pairwise(borders)]
            work += reversed(pieces)
            continue
        number = len(nodes)
        stop = int(between.min()) if len(between) else len(sequences[low])
        nodes.append(_Node(depth, stop, sequences[low][depth:stop], parent))
        if high - low == 1:
            leaves[low] = number
        else:
            work.append((low, high, stop, number))
    for number in reversed(range(len(nodes))):
        node = nodes[number]
        node.end = max(node.end, number + 1)
        node.size += node.stop - node.start
        if node.parent >= 0:
            parent_node = nodes[node.parent]
            parent_node.size += node.size
            parent_node.end = max(parent_node.end, node.end)
    return nodes, leaves


@dataclass(frozen=True)
class _Writer:
    """Writes passes out of the nodes of a tree."""

    nodes: list[_Node]
    windows: Sequence[Window]
    ids: Sequence[np.ndarray]
    shifts: Sequence[int]

    def write(self, subtrees: Sequence[tuple[int, int]], seen: int, *, kept: bool = False) -> Pass:
        """Of the nodes from first to last of each subtree."""
        segments: list[Segment] = []
        parts = []
        asked: list[tuple[np.ndarray, ...]] = []
        at = 0
        for first, last in subtrees:
            for node in self.nodes[first:last]:
                stop = at + node.stop - node.start
                end = stop if kept else at + node.size
                segments.append(Segment(at, stop, end, node.start - seen))
                parts.append(node.ids)
                asked += [self._asked(one, at - node.start) for one in node.asked]
                at = stop
        return Pass(np.concatenate(parts), segments, seen, kept, _targets(asked))

    def _asked(self, asked: tuple[int, int, int], shift: int) -> tuple[np.ndarray, ...]:
        """Positions in the pass, target ids and slots."""
        number, low, high = asked
        window = self.windows[number]
        inputs = np.arange(window.start + low, window.start + high)
        positions = inputs - window.start + shift
        return positions, self.ids[window.row][inputs + 1], inputs + self.shifts[number]


def _targets(asked: Sequence[tuple[np.ndarray, ...]]) -> Targets:
    if not asked:
        return Targets(*(np.zeros(0, dtype=int) for _ in range(4)))
    positions, ids, slots = (np.concatenate(parts) for parts in zip(*asked))
    order = np.argsort(positions, kind="stable")
    unique, of = np.unique(positions[order], return_inverse=True)
    return Targets(unique, of, ids[order], slots[order])


def _passes(writer: _Writer, batch_tokens: int) -> Iterator[Pass]:
    nodes = writer.nodes
    # Nodes whose children are next; -1 stands above all.
    work = [-1]
    while work:
        above = work.pop()
        seen = 0
        if above >= 0:
            node = nodes[above]
            seen = node.stop
            yield writer.write([(above, above + 1)], node.start, kept=True)
        at, after = above + 1, nodes[above].end if above >= 0 else len(nodes)
        pack: list[tuple[int, int]] = []
        room = batch_tokens
        large = []
        while at < after:
            node = nodes[at]
            # What is too large for a pass and has no parts is a pass all the same.
            if node.size > batch_tokens and node.end > at + 1:
                large.append(at)
            else:
                if node.size > room and pack:
                    yield writer.write(pack, seen)
                    pack, room = [], batch_tokens
                pack.append((at, node.end))
                room -= node.size
            at = node.end
        if pack:
            yield writer.write(pack, seen)
        work += reversed(large)
