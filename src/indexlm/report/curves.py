"""Curves over training: loss and learning rate, preference measures, capabilities, gradients."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FuncFormatter, MaxNLocator

from indexlm.evals.starter import KINDS, STYLES
from indexlm.report.emergence import Curves
from indexlm.report.figures import (
    PALETTE,
    chance_band,
    drawing,
    line,
    percent_axis,
    plain_log,
    rate_axis,
    steps_axis,
)
from indexlm.report.markup import Html, short
from indexlm.report.run_files import text_order

Metrics = Mapping[str, Sequence[Mapping[str, Any]]]
"""Stage -> the lines of its `metrics.jsonl`."""

Points = Mapping[str, Sequence[tuple[float, Mapping[str, float]]]]

PRETRAINING = ("trunk", "base", "pure")
BRANCHES = ("base", "pure")
DEPTH = ("#5a7be0", "#2fa39a", "#c79a1b")
"""From the first layer to the last; as light as is readable on white and on black."""
STYLE_NAMES = {"per_token": "per token", "per_byte": "per byte", "pmi": "PMI"}


def column(entries: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [entry[key] for entry in entries]


def pretraining(metrics: Metrics) -> Html:
    """Loss of trunk and branches over steps, the learning rate below."""
    with drawing("pretraining", 4.6) as page:
        loss, rate = page.figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for name in PRETRAINING:
            entries = metrics[name]
            if entries:
                line(loss, column(entries, "step"), column(entries, "loss"), name)
                style = {"linestyle": (0, (3, 2))} if name == "pure" else {}
                line(rate, column(entries, "step"), column(entries, "lr"), name, **style)
        plain_log(loss)
        _mark_decay(loss, _branching_step(metrics))
        _mark_decay(rate, _branching_step(metrics), named=False)
        loss.set_title("Training loss, nats per token (log axis)")
        page.legend(loss)
        rate.set_title("Learning rate")
        rate_axis(rate)
        steps_axis(rate)
        return page.svg("Training loss and learning rate of trunk, base and pure over steps")


def finetuning(metrics: Metrics, stages: Sequence[str]) -> Html:
    """Loss and learning rate of the SFT stages, a row each."""
    with drawing("finetuning " + " ".join(stages), 2.3 * len(stages)) as page:
        rows = page.figure.subplots(len(stages), 2, squeeze=False, width_ratios=(2, 1))
        for name, (loss, rate) in zip(stages, rows):
            entries = metrics[name]
            line(loss, column(entries, "step"), column(entries, "loss"), name)
            line(rate, column(entries, "step"), column(entries, "lr"), name)
            loss.set_title(f"{name}: loss, nats per token")
            rate.set_title(f"{name}: learning rate")
            rate_axis(rate)
            steps_axis(loss)
            steps_axis(rate)
        return page.svg("Loss and learning rate of " + " and ".join(stages))


def preference(metrics: Metrics, stages: Sequence[str]) -> Html:
    """Loss, log-ratios, accuracy and learning rate of the DPO stages, a row each."""
    with drawing("preference " + " ".join(stages), 2.5 * len(stages)) as page:
        rows = page.figure.subplots(len(stages), 4, squeeze=False)
        for name, (loss, ratios, accuracy, rate) in zip(stages, rows):
            entries = metrics[name]
            steps = column(entries, "step")
            line(loss, steps, column(entries, "loss"), name)
            for key, colour in (("chosen", "good"), ("margin", "ink"), ("rejected", "bad")):
                line(ratios, steps, column(entries, key), colour, label=key)
            ratios.axhline(0, color=PALETTE["soft"], linewidth=0.8)
            line(accuracy, steps, column(entries, "accuracy"), name)
            accuracy.axhline(0.5, color=PALETTE["soft"], linewidth=0.8, linestyle="--")
            accuracy.set_ylim(0, 1.03)
            percent_axis(accuracy)
            line(rate, steps, column(entries, "lr"), name)
            rate_axis(rate)
            loss.set_title(f"{name}: loss")
            ratios.set_title("Log-ratios, nats")
            accuracy.set_title("Pairs in order")
            rate.set_title("Learning rate")
            for axes in (loss, ratios, accuracy, rate):
                steps_axis(axes)
        page.legend(ratios)
        return page.svg("Loss, log-ratios, accuracy and learning rate of " + " and ".join(stages))


def scored(metrics: Metrics) -> Curves:
    """The evaluations inside pre-training."""
    lines = []
    for name in PRETRAINING:
        seen = accumulate(column(metrics[name], "tokens"), initial=_tokens_before(metrics, name))
        for tokens, entry in zip(list(seen)[1:], metrics[name]):
            if "scores" in entry:
                phase = "decay" if name in BRANCHES else "stable"
                point = {"stage": name, "step": entry["step"] + 1, "tokens": tokens}
                lines.append(point | {"phase": phase, "scores": entry["scores"]})
    begun = [name for name in BRANCHES if metrics[name]]
    return Curves(lines, {name: _tokens_before(metrics, name) for name in begun})


def _tokens_before(metrics: Metrics, stage: str) -> float:
    """What a branch's trunk has read until it leaves it."""
    if stage not in BRANCHES or not metrics[stage]:
        return 0.0
    first = metrics[stage][0]["step"]
    return float(sum(entry["tokens"] for entry in metrics["trunk"] if entry["step"] < first))


def _by_stage(metrics: Metrics) -> Points:
    """Stage -> (pre-training tokens seen, scores); a branch begins with its trunk's last point."""
    curves = scored(metrics)
    return {
        name: [(curves.at(each), each["scores"]) for each in lines]
        for name, lines in curves.stages().items()
    }


def capability_bits(metrics: Metrics) -> Html:
    """Bits per byte of each language over pre-training tokens."""
    points = _by_stage(metrics)
    keys = _keys(points, "bits_per_byte/")
    keys.sort(key=lambda key: text_order(key.split("/")[1]))
    with drawing("capability bits", 3.1) as page:
        panels = page.figure.subplots(1, len(keys), squeeze=False)[0]
        for axes, key in zip(panels, keys):
            _capability(axes, points, key, _branching_tokens(metrics))
            axes.set_title(f"Bits per byte, {key.split('/')[1]}")
        page.legend(panels[0])
        return page.svg("Bits per byte of each language over pre-training tokens")


def capability_choice(metrics: Metrics, measure: str, items: Mapping[str, int]) -> Html:
    """Starter-test `measure` (accuracy or margin) of each kind and style over tokens.

    The `items` of each kind give the band that guessing explains in 19 of 20 runs.
    """
    points = _by_stage(metrics)
    kinds = [kind for kind in KINDS if _keys(points, f"starter/{kind}/")]
    with drawing(f"capability {measure}", 2.2 * len(kinds) + 0.5) as page:
        share = {"sharex": True, "sharey": measure == "accuracy"}
        grid = page.figure.subplots(len(kinds), len(STYLES), squeeze=False, **share)
        for kind, panels in zip(kinds, grid):
            for axes, style in zip(panels, STYLES):
                key = f"starter/{kind}/{style}/{measure}"
                _capability(axes, points, key, _branching_tokens(metrics), kind == kinds[-1])
                unit = " (nats)" if measure == "margin" else ""
                axes.set_title(f"{kind}, {STYLE_NAMES[style]}: {measure}{unit}")
                if measure == "accuracy":
                    chance_band(axes, items[kind])
        page.legend(grid[0][0])
        return page.svg(f"Starter-test {measure} over pre-training tokens")


def gradients(metrics: Metrics) -> Html:
    """Gradient norm by layer over the steps of trunk and base, and the head's share of it."""
    measured = {
        name: [entry for entry in metrics[name] if "layers" in entry] for name in PRETRAINING
    }
    entries = [*measured["trunk"], *measured["base"]]
    with drawing("gradients", 5.4) as page:
        norms, share = page.figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
        steps = column(entries, "step")
        for name, style in _layer_styles(list(entries[0]["layers"])).items():
            line(norms, steps, [e["layers"][name] for e in entries], "ink", **style)
        plain_log(norms)
        norms.set_title("Gradient norm by layer before clipping, trunk and base (log axis)")
        norms.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        for name in PRETRAINING:
            shares = [head_share(entry["layers"]) for entry in measured[name]]
            line(share, column(measured[name], "step"), shares, name)
        for axes in (norms, share):
            _mark_decay(axes, _branching_step(metrics), named=axes is norms)
        share.set_title("Share of the head in the squared norm")
        share.set_ylim(0, 1)
        percent_axis(share)
        share.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        steps_axis(share)
        return page.svg("Gradient norm by layer over steps, and the share of the head")


def head_share(layers: Mapping[str, float]) -> float:
    """The head's part of the squared gradient norm, from the norms by layer."""
    return layers["head"] ** 2 / sum(norm**2 for norm in layers.values())


def _layer_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Depth as a ramp of colour; of many layers only a few stand in the legend."""
    blocks = [name for name in names if name.startswith("layer ")]
    told = {blocks[round(place * (len(blocks) - 1) / 3)] for place in range(4)} if blocks else set()
    ramp = LinearSegmentedColormap.from_list("depth", DEPTH)
    styles: dict[str, dict[str, Any]] = {
        "embedding": {"color": PALETTE["soft"], "linestyle": (0, (4, 2))}
    }
    for place, name in enumerate(blocks):
        # matplotlib leaves labels that begin with an underscore out of a legend.
        label = name if name in told else "_" + name
        shade = ramp(place / max(len(blocks) - 1, 1))
        styles[name] = {"color": shade, "linewidth": 1.1, "label": label}
    styles["final norm"] = {"color": PALETTE["soft"], "linestyle": (0, (1, 1.5))}
    styles["head"] = {"color": PALETTE["bad"], "linewidth": 2}
    return {name: {"label": name, **styles[name]} for name in styles if name in names}


def _keys(points: Points, prefix: str) -> list[str]:
    return sorted({k for stage in points.values() for _, s in stage for k in s if prefix in k})


def _capability(
    axes: Any,
    points: Points,
    key: str,
    branching: float | None,
    last: bool = True,
) -> None:
    for name, stage in points.items():
        known = [(tokens, scores[key]) for tokens, scores in stage if key in scores]
        if known:
            xs, ys = zip(*known)
            line(axes, xs, ys, name, marker="o")
    axes.set_xlim(left=0)
    _mark_decay(axes, branching)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, place: short(tokens)))
    if last:
        axes.set_xlabel("pre-training tokens")


def _branching_tokens(metrics: Metrics) -> float | None:
    """Tokens at the first step of the decay branches, None before there is one."""
    return min(scored(metrics).decay_from.values(), default=None)


def _branching_step(metrics: Metrics) -> float | None:
    """The first step of the decay branches, None before there is one."""
    first = [metrics[name][0]["step"] for name in BRANCHES if metrics[name]]
    return min(first) if first else None


def _mark_decay(axes: Any, branching: float | None, named: bool = True) -> None:
    """Shade the decay phase, which begins at `branching`, and name both phases on top."""
    low, high = axes.get_xlim()
    if branching is None or branching >= high:
        return
    axes.axvspan(branching, high, color=PALETTE["panel"], linewidth=0, zorder=0)
    axes.axvline(branching, color=PALETTE["soft"], linewidth=0.8, linestyle=":")
    axes.set_xlim(low, high)
    if named:
        style = {"color": PALETTE["soft"], "fontsize": 8, "va": "top", "clip_on": False}
        style |= {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        for label, side, away in (("stable", "right", -4), ("decay", "left", 4)):
            axes.annotate(label, (branching, 1), (away, -2), ha=side, **style)
