"""Scores that stay at chance for long and then surge, while nothing changes."""

import math
from collections.abc import Sequence

from indexlm.lab import family, reference
from indexlm.lab.arms import Arm, Watch
from indexlm.lab.drawing import POINTS, RESOLVED, percent
from indexlm.lab.jumps import gains, shares_that_jump
from indexlm.lab.studies.emergence_page import CONSTANT, ORDINARY, QUESTIONS, SLOWER, shown
from indexlm.lab.study import Declared, PresetName, Study
from indexlm.lab.verdict import Claim, Said

LENGTH = 2
"""Of a run, in stable phases of the other studies: surge and plateau are both in it."""
POINTS_OF_A_RUN = 40
RATE = 0.6
"""Of the size's peak: 3e-3 at the small one."""
MIXES = {
    CONSTANT: {"hq": 0.45, "web": 0.4, "instr": 0.15},
    SLOWER: {"hq": 0.45, "web": 0.4, "instr": 0.15},
    ORDINARY: {"hq": 0.09, "web": 0.76, "instr": 0.15},
}


def arms(preset: PresetName, seed: int) -> Sequence[Arm]:
    each = family.size(preset)
    count = LENGTH * each.stable
    watch = Watch(
        sets=(("qa", "held-out"), ("cloze", "held-out"), ("letters", "held-out")),
        every=count // POINTS_OF_A_RUN,
    )
    return [
        reference.reference(
            seed,
            name,
            world=each.world,
            model=each.model,
            train=reference.training(
                count,
                RATE * each.lr / (5 if name == SLOWER else 1),
                "wsd",
                batch=each.batch,
                micro_batch=each.batch,
            ),
            data=reference.text(**MIXES[name]),
            watch=watch,
        )
        for name in MIXES
        if name != ORDINARY or preset != "quick"
    ]


NOISE = (12.0, math.inf)
"""Points: guesses at 256 items differ by 3.8 between two evaluations (one standard deviation), and
the largest of the differences of a run by about three of these."""

SHARE = Said(
    "share of the rise over the run that comes in one jump", "全程涨幅中由单次跃升贡献的份额"
)
LARGE, SMALL = (
    Said("a large constant rate", "较大的恒定学习率"),
    Said("a fifth of it", "其五分之一"),
)

CLAIMS = (
    Declared(
        Said("accuracy jumps", "准确率跃升"),
        Claim(
            Said(
                "largest gain within a tenth of the run (accuracy on held-out questions)",
                "最大增幅（任一十分之一训练区间内，留出实体问答正确率）",
            ),
            Said("the measured curve", "实测曲线"),
            Said("a logarithmic rise between the same ends", "首尾相同的对数式上升"),
            "higher",
            5,
            "low",
            POINTS,
            NOISE,
        ),
        CONSTANT,
        CONSTANT,
        made=gains(CONSTANT, f"{QUESTIONS}/accuracy"),
    ),
    Declared(
        Said("margin is smoother", "对数概率间隔更平滑"),
        Claim(
            SHARE,
            Said("the margin of the same answers", "同一批答案的对数概率间隔"),
            Said("their accuracy", "其正确率"),
            "lower",
            0.1,
            "high",
            # Nothing to compare where neither jumps in any run.
            resolves=(0.0, math.inf),
            claimant=Said("Schaeffer et al. (2023)", "Schaeffer 等（2023）"),
        ),
        CONSTANT,
        CONSTANT,
        made=shares_that_jump(CONSTANT, f"{QUESTIONS}/margin", f"{QUESTIONS}/accuracy"),
    ),
    Declared(
        Said("a large rate", "较大的学习率"),
        Claim(
            Said("right answers to held-out questions at the end", "终点处留出实体问答正确率"),
            LARGE,
            SMALL,
            "higher",
            2,
            "low",
            POINTS,
            RESOLVED,
            claimant=Said("the report, as a guess,", "报告（作为推测）"),
        ),
        CONSTANT,
        SLOWER,
        percent(f"{QUESTIONS}/accuracy"),
    ),
)

STUDY = Study(
    name="emergence",
    title=Said("Surge in the stable phase", "稳定阶段的能力跃升"),
    question=Said(
        "Do scores leave chance in a jump while learning rate and data stay the same, and does the "
        "model change in a jump too?",
        "在学习率与数据都不变时，得分是否以跃升的方式离开随机水平？模型本身是否也在跃变？",
    ),
    report=Said(
        "In the stable phase, with nothing changed, C-Eval and MMLU stay near 27 and 26 until 1T "
        "tokens and are near 36 and 33 at 1.2T (so the text; in the figure MMLU is at 30.8 at 1.2T "
        "and at 33.4 at 1.36T). Unexplained; good data and a large stable learning "
        "rate are named as a plausible account.",
        "稳定阶段一切不变，C-Eval 与 MMLU 在 1T 词元前停留在 27 与 26 附近，到 1.2T 时约为 36 与 "
        "33（此为正文所述；图中 MMLU 在 1.2T 为 30.8，1.36T 为 33.4）。原因未明；报告给出的可能解释"
        "是优质数据与较大的稳定学习率。",
    ),
    design=Said(
        "Constant learning rate after the warm-up, one mix of curated text, ordinary text and "
        f"instruction data from the first step to the last, {POINTS_OF_A_RUN} evaluations evenly "
        "apart. A surge is judged by the most that accuracy gains within a tenth of the run, "
        "beside the most that a rise with the logarithm of the tokens gains there, the usual "
        "smooth course of a score, between the same ends and with the same noise. "
        "A score that waits and surges gains more; one that rises straight gains less. Accuracy "
        "and its continuous counterpart, the log-probability of the right answer minus that of the "
        "best wrong one, are of the same held-out questions. A jump of either is a rise within a "
        "tenth of the run that a smooth rise with the same noise would show in at most 5% of the "
        "cases and that takes at least half of the whole rise; each seed's curve is judged by "
        "itself, and where nothing stands out its share is 0.",
        "预热之后学习率恒定，精选文本、普通文本与指令数据的配比自始至终不变，等间隔评测 "
        f"{POINTS_OF_A_RUN} 次。跃升的判据：任一十分之一训练区间内正确率的最大增幅，与首尾相同、按"
        "词元数对数上升（得分平滑上升的常见形态，并计入同样的噪声）的最大增幅相比。先停滞后跃升"
        "者增幅更大，匀速上升者更小。正确率及其连续对应量（正确答案与最强错误答案的对数概率之差）取"
        "自"
        "同一批留出问题。二者各自的跃升，指全程十分之一以内的上升：同样噪声的平滑上升至多 5% 的情形"
        "会出现，且占全程涨幅一半以上。每个种子的曲线单独判定，没有突出上升时其份额为 0。",
    ),
    limits=Said(
        "A surge here, if there is one, is one mechanism in a toy, facts that come first and are "
        "then used all at once; whether the report's is of that kind is unknown. A logarithmic "
        "rise gains most in its first tenth, and the more the earlier measuring begins: the first "
        "claim is of this grid of points. Learning rate and mix are those of "
        "a prototype in which two runs of four had jumped; the seeds of the verdict are others. "
        "The gain depends on how long the run goes on after it. Mind the resolution: 40 points, "
        "256 questions.",
        "这里的跃升即使出现，也只是玩具规模下的一种机制：先积累事实，继而几乎同时可用；报告中的跃升"
        "是否属于此类不得而知。对数式上升在最初十分之一涨得最多，且测量起点越早涨幅越大：第一条论断"
        "只就"
        "这一组测点而言。学习率与配比取自一次原型试验，其中四次运行有两次出现跃升；判定所用种"
        "子与之不同。增幅还取决于跃升之后训练多久。分辨率有限：40 个点、256 道题。",
    ),
    arms=arms,
    claims=CLAIMS,
    shown=shown,
    seeds={"quick": 5, "full": 12, "gpu": 3},
)
