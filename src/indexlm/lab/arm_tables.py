"""The tables of all arms of a study: what they cost, and what they scored."""

from collections.abc import Sequence

from indexlm.lab.glossary import explained
from indexlm.lab.outcome import Outcome
from indexlm.lab.pieces import Plain, plain_number, said, wide
from indexlm.report.markup import Html, both, element, join, number, sentence, short, table

MOST_SCORES = 6
"""Of a table."""


def arm_tables(found: Outcome) -> Html:
    arms = found["arms"]
    scores = [name for name in _score_names(arms) if _headline(name)]
    note = sentence(
        "p",
        "Scores are means over the seeds and half of their 95% interval, at the last step; a dash "
        "where a seed diverged. Steps, tokens and arithmetic are an arm's own, without those of a "
        "trunk that it goes on from.",
        "分数为各种子在最后一步的均值及 95% 区间的一半；有种子发散时记为短横。步数、词元数与计算量"
        "不含所接续的主干。",
        "note",
    )
    meanings = [
        element("li", said("div", each._asdict(), "note said")) for each in explained(scores)
    ]
    parts = [_costs(arms), *(_scores(arms, part) for part in _parts(scores)), note]
    return join(*parts, element("ul", *meanings), _every_seed(arms, _parts(scores)))


def _parts(scores: Sequence[str]) -> list[Sequence[str]]:
    """As many as fit beside each other on paper; at least one part, of none where there is none."""
    starts = range(0, max(len(scores), 1), MOST_SCORES)
    return [scores[start : start + MOST_SCORES] for start in starts]


def _costs(arms: Sequence[Plain]) -> Html:
    head = [
        both("Arm", "运行"),
        both("Parameters", "参数"),
        both("In the layers", "各层之内"),
        both("Steps", "步数"),
        both("Tokens", "词元"),
        both("FLOPs", "计算量"),
        both("CPU-seconds", "CPU 秒"),
        both("Clipped steps", "被裁剪的步"),
        both("Diverged", "发散"),
    ]
    rows = []
    for arm in arms:
        seeds = list(arm["seeds"].values())
        diverged = sum(bool(seed["diverged"]) for seed in seeds)
        spent, clipped = (
            sum(seed[name] for seed in seeds) / len(seeds) for name in ("cpu_seconds", "clipped")
        )
        rows.append(
            [
                wide(arm["name"]),
                short(arm["parameters"]),
                short(arm["non_embedding"]),
                number(arm["steps"]),
                short(arm["tokens"]),
                short(arm["flops"]),
                number(spent, 1),
                f"{clipped:.0%}",
                f"{diverged} / {len(seeds)}",
            ]
        )
    return table(head, rows)


def _scores(arms: Sequence[Plain], scores: Sequence[str]) -> Html:
    rows = [
        [wide(arm["name"]), *(_score(arm["scores"].get(name)) for name in scores)] for arm in arms
    ]
    return table([both("Arm", "运行"), *map(_broken, scores)], rows)


def _broken(score: str) -> Html:
    """A line for each part of its name: columns are narrower than names."""
    first, *others = score.split("/")
    return join(first, *(join(Html("<br>"), part) for part in others))


def _score(found: Plain | None) -> str:
    if found is None or found["mean"] is None:
        return "–"
    shown = f"{found['mean']:.3f}"
    if found["interval"] is None:
        return shown
    low, high = found["interval"]
    return f"{shown} ± {(high - low) / 2:.3f}"


def _every_seed(arms: Sequence[Plain], parts: Sequence[Sequence[str]]) -> Html:
    """Folded away: the values that the means are of."""
    summary = element("summary", both("Every seed", "逐个种子"))
    tables = [_seeds(arms, part, whole=not place) for place, part in enumerate(parts)]
    return element("details", summary, *tables)


def _seeds(arms: Sequence[Plain], scores: Sequence[str], whole: bool) -> Html:
    """`whole` with what a seed has beside its scores."""
    head = [both("Arm", "运行"), both("Seed", "种子"), *map(_broken, scores)]
    if whole:
        head += [both("Fingerprint", "指纹"), both("Diverged", "发散")]
    rows = []
    for arm in arms:
        for number_of, seed in arm["seeds"].items():
            values = [plain_number(seed["scores"].get(name)) for name in scores]
            more = [element("code", seed["fingerprint"][:16]), seed["diverged"]] if whole else []
            rows.append([wide(arm["name"]), number_of, *values, *more])
    return table(head, rows)


def _score_names(arms: Sequence[Plain]) -> list[str]:
    seeds = [seed for arm in arms for seed in arm["seeds"].values()]
    return list(dict.fromkeys(name for seed in seeds for name in seed["scores"]))


def _headline(score: str) -> bool:
    return score.startswith(("loss/", "bits", "refused/")) or score.endswith(
        ("/accuracy", "/exact")
    )
