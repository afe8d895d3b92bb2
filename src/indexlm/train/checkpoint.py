"""Checkpoints to resume from: torch.distributed.checkpoint behind a manifest.

A checkpoint is `<stage>/checkpoints/step-<n>`, where n steps are done; it appears by one rename.
Any number of processes writes it, each its shards, and any other number reads it. Loading unpickles
the format's own metadata, so only folders that this program wrote and whose hashes hold are ever
loaded; what is passed between people is safetensors and JSON.
"""

import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from indexlm.errors import DamagedError, UserError
from indexlm.records import begin, finish, read_manifest, verify
from indexlm.runtime import from_first, rank, ranks

log = logging.getLogger("indexlm")

KEPT = 2
"""The newest one and the one to fall back to."""


@dataclass
class Checkpoints:
    """The checkpoints of one stage, as they are written."""

    folder: Path
    made_from: str
    """Fingerprint of all that the stage depends on."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Its parts by name, to say which one has changed."""
    keep_every: int = 0
    """Multiples of it are kept; 0 keeps the newest KEPT only."""
    background: bool = False
    """Whether a thread writes a copy of the state while training goes on."""

    def __post_init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoint") if self.background else None
        if self.background:
            # As in `_write`, but torch says it in a thread of its own.
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        self._pending: Future[None] | None = None
        # Collectives of two threads on one group would be mixed up.
        apart = self.background and ranks() > 1
        self._group = dist.new_group(backend="gloo") if apart else None

    def save(self, step: int, state: dict[str, Tensor]) -> None:
        """Write a checkpoint and remove all but those to be kept.

        All else in the folder goes too: what a kill left half-written or half-removed, and
        checkpoints of other inputs or later steps, which would outlive and outrank the ones made
        now. In the background it returns once the state is copied. Raises OSError, naming the
        bytes that are needed, where it cannot be written; the checkpoints before are untouched.
        """
        self.wait()
        final = self.folder / f"step-{step:08d}"
        partial = from_first(lambda: begin(final))
        if self._thread is None:
            with self._whole_or_nothing(partial, state):
                _write(partial, state, self._group)
                self._publish(partial, final, step)
            from_first(lambda: None)
            return
        copied = dcp.async_save(
            state, checkpoint_id=partial, process_group=self._group, no_dist=ranks() == 1
        )
        self._pending = self._thread.submit(self._end, copied, partial, final, step, state)

    def check(self) -> None:
        """Raise what a save in the background has failed with, if it has."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written. Raises what the save failed with."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()

    def _end(
        self, copied: Any, partial: Path, final: Path, step: int, state: dict[str, Tensor]
    ) -> None:
        with self._whole_or_nothing(partial, state):
            copied.result()
            self._publish(partial, final, step)

    def _publish(self, partial: Path, final: Path, step: int) -> None:
        """The manifest, the name, and room for it; when every process has written its shards."""
        if rank() != 0:
            return
        finish(partial, final, self.made_from, {"step": step, "inputs": dict(self.inputs)})
        mine = [path for path in _all(self.folder) if _of(path, step, self.made_from)]
        kept = mine[-KEPT:]
        kept += [path for path in mine if self.keep_every and _step(path) % self.keep_every == 0]
        for path in self.folder.iterdir():
            if path not in kept:
                shutil.rmtree(path)

    @contextmanager
    def _whole_or_nothing(self, partial: Path, state: dict[str, Tensor]) -> Iterator[None]:
        try:
            yield
        # The first one is no Exception; torch reports a full disk as a RuntimeError.
        except (CheckpointException, RuntimeError, OSError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            free = shutil.disk_usage(self.folder).free
            raise OSError(
                f"{partial.name.strip('.').removesuffix('.partial')} could not be written to "
                f"{self.folder}: it takes about {size(state):,} bytes, {free:,} are free "
                f"({_reason(error)}); the checkpoint before it is untouched, and the same command "
                "goes on from there"
            ) from error
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def load(checkpoint: Path, state: dict[str, Tensor]) -> int:
    """Fill `state` in place from a verified checkpoint; returns the number of steps done."""
    manifest = from_first(lambda: verify(checkpoint))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            dcp.load(state, checkpoint_id=checkpoint, no_dist=ranks() == 1)
        except CheckpointException as error:
            # torch gathers whatever a process fails with, a Ctrl-C like any error.
            if any(isinstance(why, KeyboardInterrupt) for why, _ in error.failures.values()):
                raise KeyboardInterrupt from error
            raise
    return int(manifest.notes["step"])


def newest(folder: Path, made_from: str, inputs: Mapping[str, str] | None = None) -> Path | None:
    """The newest undamaged checkpoint; a damaged one is reported and passed over.

    None where there is none. Raises UserError where those that there are were made from other
    inputs, naming each that differs with both fingerprints, and DamagedError where all of them are
    damaged: starting over would remove what may be days of work and could still be restored.
    """
    damages: list[DamagedError] = []
    for checkpoint in reversed(_all(folder)):
        try:
            manifest = verify(checkpoint)
        except DamagedError as error:
            damages.append(error)
            continue
        known, asked = manifest.notes.get("inputs", {}), dict(inputs or {})
        if manifest.fingerprint != made_from or known != asked:
            raise UserError(_changed(checkpoint, known, asked))
        for damage in damages:
            log.warning(f"{damage}; falling back to {checkpoint.name}")
        return checkpoint
    if damages:
        raise DamagedError(
            f"no checkpoint in {folder} is whole: {'; '.join(map(str, damages))}; restore one from "
            f"a copy, or delete {folder.parent} to start this stage anew"
        )
    return None


def check_settings(folder: Path, parts: Mapping[str, str]) -> None:
    """Raises UserError, as `newest` does, where the newest checkpoint was made under other settings
    than `parts` says. Reads manifests alone; files of tokens are for `newest` to compare."""
    for checkpoint in reversed(_all(folder)):
        try:
            manifest = read_manifest(checkpoint)
        except DamagedError:
            continue
        if manifest is not None:
            inputs = manifest.notes.get("inputs", {})
            known = {name: part for name, part in inputs.items() if not name.startswith("tokens/")}
            if known != parts:
                raise UserError(_changed(checkpoint, known, parts))
            return


def last(folder: Path) -> Path:
    """The checkpoint in which a finished stage ended."""
    return _all(folder)[-1]


def at_step(folder: Path, step: int) -> Path:
    """The checkpoint of a step. Raises UserError, naming those that there are, where it is none."""
    found = {_step(path): path for path in _all(folder)}
    if step not in found:
        raise UserError(
            f"{folder} has no checkpoint of step {step}, but of {', '.join(map(str, found))}; "
            "name one of them, or train it again with pretrain.keep_every"
        )
    return found[step]


def size(state: Mapping[str, Tensor]) -> int:
    """Bytes of a checkpoint, of all processes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def check_space(folder: Path, state: Mapping[str, Tensor], more: int) -> None:
    """Raises UserError where the disk cannot hold the checkpoints of a stage: those that are kept,
    one being written and `more` to branch from."""
    used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    need = (KEPT + 1 + more) * size(state) - used
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    if need > free:
        raise UserError(
            f"{folder}: checkpoints take {need:,} bytes more ({KEPT + 1 + more} of "
            f"{size(state):,}), the disk has {free:,} free; make room or name an --out elsewhere"
        )


def _write(partial: Path, state: dict[str, Tensor], group: Any) -> None:
    with warnings.catch_warnings():
        # It warns that there is no process group, which is what no_dist asks for.
        warnings.simplefilter("ignore", UserWarning)
        dcp.save(state, checkpoint_id=partial, process_group=group, no_dist=ranks() == 1)


def _reason(error: BaseException) -> str:
    if isinstance(error, CheckpointException):
        return "; ".join(str(failure[0]) for failure in error.failures.values())
    return str(error).split("\n")[0]


def _changed(checkpoint: Path, old: Mapping[str, str], new: Mapping[str, str]) -> str:
    differ = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    said = "; ".join(
        f"{name} was {old.get(name, 'absent')[:12]}, is {new.get(name, 'absent')[:12]}"
        for name in differ
    )
    return (
        f"{checkpoint} was made from other inputs ({said or 'they are not named in it'}); undo the "
        f"change to go on with it, name another --out, or delete {checkpoint.parent.parent} to "
        "start this stage anew"
    )


def _of(checkpoint: Path, step: int, made_from: str) -> bool:
    """Whether a checkpoint belongs to the run that has come to `step`; a damaged one does not."""
    try:
        manifest = read_manifest(checkpoint)
    except DamagedError:
        return False
    return (
        manifest is not None
        and manifest.fingerprint == made_from
        and int(manifest.notes["step"]) <= step
    )


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _all(folder: Path) -> list[Path]:
    """Oldest first. Their manifests are not read: whether one is whole is for the caller to judge,
    who would else take an older one, without a word, for one whose manifest is lost."""
    return sorted(folder.glob("step-*"))
