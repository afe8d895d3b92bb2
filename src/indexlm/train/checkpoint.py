"""Checkpoints to resume from: torch.distributed.checkpoint behind a manifest.

A checkpoint is `<stage>/checkpoints/step-<n>`, where n steps are done; it appears by one rename.
Loading unpickles the format's own metadata, so only folders that this program wrote and whose
hashes hold are ever loaded; what is passed between people is safetensors and JSON.
"""

import logging
import shutil
import warnings
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch import Tensor

from indexlm.errors import DamagedError
from indexlm.records import MANIFEST, publish, read_manifest, verify

log = logging.getLogger("indexlm")

KEPT = 2
"""The newest one and the one to fall back to."""


def save(folder: Path, step: int, state: dict[str, Tensor], made_from: str) -> None:
    """Write a checkpoint and remove all but the newest KEPT.

    All else in `folder` goes too: what a kill left half-written or half-removed, and checkpoints
    of other inputs or later steps, which would outlive and outrank the ones made now.
    """
    with (
        publish(folder / f"step-{step:08d}", made_from, {"step": step}) as partial,
        warnings.catch_warnings(),
    ):
        # It warns that there is no process group, which is what no_dist asks for.
        warnings.simplefilter("ignore", UserWarning)
        dcp.save(state, checkpoint_id=partial, no_dist=True)
    mine = [path for path in _finished(folder) if _of(path, step, made_from)]
    for path in folder.iterdir():
        if path not in mine[-KEPT:]:
            shutil.rmtree(path)


def load(checkpoint: Path, state: dict[str, Tensor]) -> int:
    """Fill `state` in place from a verified checkpoint; returns the number of steps done."""
    manifest = verify(checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        dcp.load(state, checkpoint_id=checkpoint, no_dist=True)
    return int(manifest.notes["step"])


def newest(folder: Path, made_from: str) -> Path | None:
    """The newest undamaged checkpoint made from the same inputs; a damaged one is reported."""
    for checkpoint in reversed(_finished(folder)):
        try:
            manifest = verify(checkpoint)
        except DamagedError as error:
            log.warning(f"{error}; falling back to the checkpoint before it")
            continue
        if manifest.fingerprint == made_from:
            return checkpoint
    return None


def last(folder: Path) -> Path:
    """The checkpoint in which a finished stage ended."""
    return _finished(folder)[-1]


def _of(checkpoint: Path, step: int, made_from: str) -> bool:
    """Whether a checkpoint belongs to the run that has come to `step`; a damaged one does not."""
    try:
        manifest = read_manifest(checkpoint)
    except DamagedError:
        return False
    assert manifest is not None
    return manifest.fingerprint == made_from and manifest.notes["step"] <= step


def _finished(folder: Path) -> list[Path]:
    """Oldest first. Their manifests are not read: a damaged one is for the caller to judge."""
    return sorted(path for path in folder.glob("step-*") if (path / MANIFEST).is_file())
