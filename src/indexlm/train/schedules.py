"""Learning rate over steps, as a share of the peak.

WSD: warm-up, stable, decay (MiniCPM, Hu et al. 2024). The decay belongs to the branch that runs
it: a trunk is a WSD schedule whose decay has no steps. A cosine or a line falls from the end of the
warm-up to the last step.
"""

import math

from indexlm.config import ScheduleConfig

SMALLEST_FINAL = 1e-8
"""Where an exponential decay with `final` = 0 ends: it would never come to 0 itself."""


def lr_share(config: ScheduleConfig, step: int, steps: int, decay_steps: int = 0) -> float:
    """Share of the peak at `step` of `steps` (counted from 0).

    Step `warmup - 1` has the peak; without a warm-up a cosine and a line begin one step below it.
    The last `decay_steps` are the decay of WSD, the others have none. The last step of a decay
    comes to `last_share`.
    """
    assert 0 <= step < steps and 0 <= decay_steps <= steps, (step, steps, decay_steps)
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.shape == "wsd":
        begin = steps - decay_steps
        if step < begin:
            return 1.0
        progress = (step - begin + 1) / decay_steps
        return _decayed(config, progress)
    progress = (step - config.warmup + 1) / (steps - config.warmup)
    if config.shape == "cosine":
        return config.final + (1 - config.final) * (1 + math.cos(math.pi * progress)) / 2
    return 1 - (1 - config.final) * progress


def last_share(config: ScheduleConfig) -> float:
    """Share of the peak at the last step of a decay: `final`, or SMALLEST_FINAL for an exponential
    to 0."""
    if config.shape == "wsd" and config.decay_shape == "exponential":
        return max(config.final, SMALLEST_FINAL)
    return config.final


def shortcoming(section: str, config: ScheduleConfig, steps: int) -> str:
    """What a schedule over `steps` steps, without decay branches, lacks: the peak is never reached,
    or a cosine or a line has no step to fall in. Empty where it lacks nothing; a run that is cut
    short to be tried may lack either. `section` is the stage's in the recipe."""
    if config.shape == "wsd" and config.warmup > steps:
        return (
            f"{section}.schedule.warmup={config.warmup}: in {steps} steps the learning rate never "
            f"comes to its peak; at most {steps} would"
        )
    if config.shape != "wsd" and config.warmup >= steps:
        return (
            f"{section}.schedule.warmup={config.warmup}: of {steps} steps none is left for the "
            f"{config.shape} to fall in; lower it below {steps}"
        )
    return ""


def _decayed(config: ScheduleConfig, progress: float) -> float:
    match config.decay_shape:
        case "linear":
            return 1 - (1 - config.final) * progress
        case "exponential":
            return last_share(config) ** progress
        case "sqrt":
            return 1 - (1 - config.final) * math.sqrt(progress)
