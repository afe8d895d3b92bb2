"""Learning rate over steps, as a share of the peak.

WSD: warm-up, stable, decay (MiniCPM, Hu et al. 2024). The decay belongs to the branch that runs
it: a trunk is a WSD schedule whose decay has no steps.
"""

import math

from indexlm.config import ScheduleConfig


def lr_share(config: ScheduleConfig, step: int, steps: int, decay_steps: int = 0) -> float:
    """Share of the peak at `step` of `steps` (counted from 0); the last step comes to `final`."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.shape == "wsd":
        begin = steps - decay_steps
        if step < begin:
            return 1.0
        progress = (step - begin + 1) / decay_steps
        return _decayed(config, progress)
    progress = (step - config.warmup + 1) / max(steps - config.warmup, 1)
    if config.shape == "cosine":
        return config.final + (1 - config.final) * (1 + math.cos(math.pi * progress)) / 2
    return 1 - (1 - config.final) * progress


def _decayed(config: ScheduleConfig, progress: float) -> float:
    match config.decay_shape:
        case "linear":
            return 1 - (1 - config.final) * progress
        case "exponential":
            return max(config.final, 1e-8) ** progress
        case "sqrt":
            return 1 - (1 - config.final) * math.sqrt(progress)
