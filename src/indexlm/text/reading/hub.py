"""Datasets of the hub by name: downloaded once, then files like any other.

`huggingface_hub` downloads, goes on where it stopped, and keeps what it has in its own layout in
the downloads folder; a run without a network uses what is there. It also reads the variables and
the login that say who asks (HF_TOKEN, HF_ENDPOINT, `hf auth login`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexlm.errors import UserError, shown
from indexlm.records import log
from indexlm.text.reading.files import COMPRESSED, KINDS, KNOWN

CARD = "README.md"
_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Dataset:
    """Where a dataset lies. `folder` is `root` or the part of it that was asked for."""

    root: Path
    folder: Path
    source: str
    license: str


def fetch(
    asked: str, downloads: Path, patterns: Sequence[str] = (), place: str = "text.inputs"
) -> Dataset:
    """The files of `OWNER/NAME[:SUBFOLDER]` that can be read, in `downloads`/hub.

    Only those whose paths match one of `patterns`, where there are any; `place` is the setting that
    messages name. The license is what the dataset's card states, empty where it states none.
    Raises UserError for a name that is none or is unknown, terms that were not accepted, no
    network, no such files, and a missing `huggingface_hub`.
    """
    name, _, inside = asked.partition(":")
    inside = inside.strip("/")
    if not _NAME.fullmatch(name) or ".." in inside.split("/"):
        raise UserError(
            f"{place}: hub:{asked} is no dataset; write hub:OWNER/NAME or hub:OWNER/NAME:SUBFOLDER"
        )
    root = _download(name, inside, downloads / "hub", patterns, place)
    folder = root / inside
    if not folder.is_dir():
        raise UserError(
            f"{place}: hub:{asked}: the dataset has no {KNOWN} in a folder {inside!r}; look at "
            f"its files and name another, or leave it out"
        )
    terms = license_of(root / CARD)
    log.info(f"hub:{asked}: commit {root.name}, license {terms or 'not stated'}")
    return Dataset(root, folder, name, terms)


def _download(name: str, inside: str, cache: Path, patterns: Sequence[str], place: str) -> Path:
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise UserError(
            f"{place}: hub:{name} needs `huggingface_hub`: pip install 'indexlm[hub]'"
        ) from error
    prefix = f"{inside}/" if inside else ""
    endings = [f".{kind}{packed}" for kind in KINDS for packed in ("", *COMPRESSED)]
    wanted = patterns or [f"{prefix}*{ending}" for ending in endings]
    try:
        return Path(
            snapshot_download(
                name,
                repo_type="dataset",
                cache_dir=cache,
                allow_patterns=[CARD, *wanted],
            )
        )
    except errors.GatedRepoError as error:
        raise UserError(
            f"{place}: hub:{name} is given to those who accept its terms: accept them on its "
            "page, then log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{place}: the hub has no dataset {name}, or it is private; check the name, or log "
            "in with `hf auth login`"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise UserError(
            f"{place}: hub:{name} is not downloaded and the hub cannot be reached "
            f"({_cause(error)}); connect and run the same command again"
        ) from error
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(
            f"{place}: the download of hub:{name} failed ({_cause(error)}); the same command "
            "goes on where it stopped"
        ) from error


def license_of(card: Path) -> str:
    """What the card of a dataset states, empty where it states nothing that can be read."""
    from huggingface_hub import DatasetCard
    from yaml import YAMLError  # type: ignore[import-untyped]

    if not card.is_file():
        return ""
    try:
        data = DatasetCard.load(card, ignore_metadata_errors=True).data.to_dict()
    except (ValueError, YAMLError, RecursionError) as error:
        log.warning(f"{card} states no license that can be read ({_cause(error)})")
        return ""
    stated = data.get("license")
    if stated == "other":
        stated = data.get("license_name") or stated
    names = stated if isinstance(stated, list) else [stated or ""]
    return ", ".join(str(name) for name in names)


def _cause(error: BaseException) -> str:
    """The first line of what lies behind an error, on one line."""
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    return shown(str(first).strip().partition("\n")[0] or type(first).__name__)
