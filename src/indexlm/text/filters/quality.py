"""The quality classifier as a step: what it drops, and the tiers it gives.

The report's pipeline filters with classifiers after the rules, at a threshold so careful that good
text is not thrown away. The same score sorts what is kept into tiers, of which the curated one is
raised in the decay.
"""

import math
from pathlib import Path

import numpy as np

from indexlm.config import QualityConfig
from indexlm.text.block import Block
from indexlm.text.document import Columns, Step
from indexlm.text.filters.linear import Classifier, sigmoid

REASONS = {
    "low_quality": "the classifier is sure enough that it is not like the good text it was shown"
}
"""Why a document is dropped -> one sentence."""
DECIMALS = 6
"""Of a score: the last bits of `tanh` differ between machines."""


def quality(config: QualityConfig) -> Step:
    """Columns: `reason` is `low_quality` below the threshold of the document's language; `score`
    is the chance, float32, that the text is good, were half of all text good; `tier`.

    Documents of a language that the classifier was not trained on, code most of all, keep their
    tier, have no score (NaN) and are not dropped. Raises UserError for a file that is no quality
    classifier, DamagedError for a damaged one.
    """
    assert config.model is not None
    classifier = Classifier.load(Path(config.model), "quality")
    curated, noisy = (_logit(score) for score in (config.curated_from, config.noisy_below))

    def step(block: Block) -> Columns:
        logits_N = classifier.logits(block)
        # A comparison with NaN is false: what has no score is neither dropped nor moved.
        low_N = logits_N < classifier.thresholds(block)
        tiers = [document.tier for document in block.documents]
        if config.tiers == "classifier":
            moved_N = np.select(
                [logits_N >= curated, logits_N < noisy], ["curated", "noisy"], "ordinary"
            )
            tiers = [
                given if unknown else moved
                for given, moved, unknown in zip(tiers, moved_N.tolist(), np.isnan(logits_N))
            ]
        return {
            "reason": ["low_quality" if low else "" for low in low_N.tolist()],
            "score": list(np.round(sigmoid(logits_N), DECIMALS).astype(np.float32)),
            "tier": tiers,
        }

    return step


def _logit(score: float) -> float:
    return math.log(score / (1 - score))
