"""The command as a clumsy user meets it: real processes, wrong inputs, nothing half-written."""

import json
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import typer.core
import typer.main

from command import (
    PATIENCE,
    SMALL,
    flipped,
    read_until,
    refused,
    run,
    standing_still,
    start,
    succeeded,
    with_corpus,
    write_model,
)
from indexlm.cli import app
from indexlm.records import read_manifest
from indexlm.tokens.tokenizer import Tokenizer

STORY = "甲：今天天气很好。\n乙：我们去河边走走吧。\n甲：好，我去拿伞。\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and `runs/tiny`, of which the text is finished."""
    place = tmp_path_factory.mktemp("finished")
    with_corpus(place, 300)
    succeeded(place, "run", "tiny", *SMALL, "--only", "text")
    return place


@pytest.fixture
def long_text(tmp_path: Path) -> Path:
    """A folder with a corpus that takes seconds to refine, much longer than a signal."""
    return with_corpus(tmp_path, 2500)


# Recipes and settings


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tinny"], ["no recipe 'tinny'", "tiny"]),
        (["nowhere/config.json"], ["nowhere/config.json does not exist"]),
        (["tiny", "pretrain.stepz=3"], ["'pretrain.stepz'", "did you mean pretrain.steps"]),
        (["tiny", "pretrain.steps=many"], ["pretrain.steps='many'", "integer"]),
        (["tiny", "pretrain.steps"], ["section.key=value"]),
        (["tiny", "threads=100000"], ["threads=100000", "1024"]),
        (["tiny", "name="], ["name=''"]),
        (["tiny", "--only", "trunkk"], ["no stage 'trunkk'", "trunk, base"]),
        (["tiny", "--only", "trunk"], ["trunk needs text, tokenizer, tokens first", "--only"]),
        (["tiny", "model.hidden=60000"], ["pretrain needs about", "GiB", "hidden=60000"]),
        (
            ["tiny", "character.dpo.batch=1048576", "character.dpo.micro_batch=1048576"],
            ["character.dpo needs about", "lower character.dpo.micro_batch"],
        ),
        (
            ["tiny", "tokenizer.vocab_size=1000"],
            ["tokenizer.vocab_size=1000", "model.vocab_size=5120", "the same number"],
        ),
        (["tiny", "base.mixture.zh_curatd=0.1"], ["base.mixture.zh_curatd", "zh_curated"]),
        (["tiny", "--outt", "x"], ["No such option: --outt"]),
        ([], ["Missing argument 'RECIPE'"]),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_work(
    tmp_path: Path, arguments: Sequence[str], words: Sequence[str]
) -> None:
    message = refused(tmp_path, "run", *arguments)
    assert [word for word in words if word not in message] == [], message
    assert list(tmp_path.iterdir()) == []


def test_what_the_mixtures_lack_is_told_as_soon_as_the_text_is_known(tmp_path: Path) -> None:
    place = with_corpus(tmp_path, 300)
    message = refused(place, "run", "tiny", *SMALL, changes=True)
    for word in ("base.mixture asks for instruction", "sft asks", "character.source=sanguo"):
        assert word in message
    assert "pretrain" not in message
    made = {path.name for path in (place / "runs" / "tiny").iterdir() if path.is_dir()}
    assert made == {"text"}
    assert "files are what they were" in succeeded(place, "verify", "runs/tiny/text")


def test_too_little_text_for_the_vocabulary_keeps_the_text_and_makes_no_tokenizer(
    finished: Path,
) -> None:
    asked = ["tokenizer.vocab_size=30000", "model.vocab_size=30000"]
    message = refused(finished, "run", "tiny", *SMALL, *asked, "--only", "tokenizer")
    assert "model.vocab_size is 30000" in message
    text = "runs/tiny/text"
    verb = ["tokenizer", "train", text, "--out", "pieces", "--vocab-size", "30000"]
    assert "asks for 30000; ask for fewer" in refused(finished, *verb)
    verb[-1] = "600"
    assert "600 pieces" in succeeded(finished, *verb)


# Folders


def test_an_out_that_is_taken_is_left_alone(finished: Path) -> None:
    (finished / "file").write_text("mine", encoding="utf-8")
    (finished / "mine").mkdir(exist_ok=True)
    (finished / "mine" / "letter.txt").write_text("keep me", encoding="utf-8")
    text = "runs/tiny/text"
    verbs = [
        ["run", "tiny", *SMALL],
        ["data", "refine", "corpus"],
        ["data", "tokens", text, "--tokenizer", "mine"],
        ["tokenizer", "train", text, "--vocab-size", "600"],
    ]
    for verb in verbs:
        for out in ("file", "file/below", "mine"):
            message = refused(finished, *verb, "--out", out)
            assert "name another --out" in message or "name a folder with --out" in message


def test_a_folder_in_which_a_run_was_stopped_at_its_start_is_still_its_own(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    for name in (".lock", ".config.json.partial"):
        (tmp_path / "new" / name).write_bytes(b"")
    asked = ["run", "tiny", 'text.inputs=["nowhere"]', "--out", "new"]
    assert "nowhere does not exist" in refused(tmp_path, *asked, changes=True)


def test_wrong_text_in_a_finished_run_costs_nothing_that_was_finished(finished: Path) -> None:
    settings = [*SMALL, 'text.inputs=["nowhere"]']
    assert "nowhere" in refused(finished, "run", "tiny", *settings)
    assert "text: finished before" in succeeded(finished, "run", "tiny", *SMALL, "--only", "text")


def test_a_folder_of_another_recipe_is_refused(finished: Path) -> None:
    message = refused(finished, "run", "tiny", *SMALL, "name=mine", "--out", "runs/tiny")
    assert "belongs to recipe 'tiny', not 'mine'" in message


def test_what_is_no_run_is_not_resumed_reported_or_verified(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("nowhere", "folder", "file"):
        for verb in ("resume", "report", "verify"):
            message = refused(tmp_path, verb, name)
            assert name in message and re.search(
                "once it started|nor a finished folder of a run", message
            )


def test_a_whole_run_is_verified_by_its_finished_folders(finished: Path) -> None:
    message = refused(finished, "verify", "runs/tiny")
    assert "verify one in it: runs/tiny/text" in message


def test_what_is_no_refined_text_is_not_encoded(finished: Path) -> None:
    for verb in (
        ["data", "tokens", "corpus", "--tokenizer", "x"],
        ["tokenizer", "train", "corpus"],
    ):
        assert "corpus holds no refined text" in refused(finished, *verb, "--out", "new")
    assert "corpus holds no refined text" in refused(finished, "data", "inspect", "corpus")


# Stops and neighbours


def test_ctrl_c_in_the_text_stage_is_130_and_the_same_command_goes_on(long_text: Path) -> None:
    command = ["run", "tiny", *SMALL, "--only", "text"]
    process = start(long_text, *command)
    read_until(process, "reading corpus")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in err and "the same command goes on" in err
    folder = long_text / "runs" / "tiny"
    # What is half done, and goes when the text is there.
    assert [path.name for path in folder.iterdir() if path.is_dir()] == [".text.work"]
    assert "text: done" in succeeded(long_text, *command)
    assert read_manifest(folder / "text") is not None


def test_a_folder_in_use_is_refused_and_its_owner_not_disturbed(long_text: Path) -> None:
    command = ["run", "tiny", *SMALL, "--only", "text"]
    owner = start(long_text, *command)
    read_until(owner, "reading corpus")
    with standing_still(owner):
        message = refused(long_text, *command, "seed=5")
    assert "runs/tiny is in use by another process" in message
    _, err = owner.communicate(timeout=PATIENCE)
    assert owner.returncode == 0, err
    saved = json.loads((long_text / "runs" / "tiny" / "config.json").read_text(encoding="utf-8"))
    assert saved["seed"] == 1234


# Models and characters


@pytest.fixture
def model(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    return write_model(tmp_path / "model", tokenizer)


def test_what_is_no_model_is_not_talked_to(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("nowhere", "folder"):
        for verb in (["chat"], ["character", "chat"]):
            assert f"{name} is not a model folder" in refused(tmp_path, *verb, name)


def test_a_damaged_model_is_not_loaded(tmp_path: Path, model: Path) -> None:
    code, _, err = run(tmp_path, "chat", "model", "--prompt", "Hello", "--temperature", "0")
    assert code == 0, err
    weights = model / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(flipped(content, len(content) - 9, len(content) - 8))
    message = refused(tmp_path, "chat", "model", "--prompt", "Hello", code=1)
    assert "model/model.safetensors was changed" in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, ["none.csv does not exist", "script"]),
        ("a.csv", "id,text\n1,words\n", ["a.csv holds no dialogue", "column 2"]),
        ("a.jsonl", '{"text": "words"}\n', ["a.jsonl holds no dialogue", '"turns"']),
        ("a.txt", "没有对话的文字。\n", ["a.txt holds no dialogue", "`name：text`"]),
        ("a.docx", "PK", ["a.docx", ".csv, .jsonl, .txt"]),
        ("b.txt", STORY, ["'丙'", "甲 (2), 乙 (1)"]),
    ],
)
def test_a_script_without_the_character_makes_no_store(
    tmp_path: Path, name: str, content: str | None, words: Sequence[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    verb = ["character", "create", "丙", "--dialogues", name, "--description", "某人"]
    message = refused(tmp_path, *verb)
    assert [word for word in words if word not in message] == [], message


def test_a_character_is_talked_to_by_a_name_that_is_in_a_store(tmp_path: Path, model: Path) -> None:
    (tmp_path / "story.txt").write_text(STORY, encoding="utf-8")
    create = ["character", "create", "甲", "--dialogues", "story.txt", "--description", "某人"]
    talk = ["character", "chat", "model", "--store", "characters.sqlite", "--name"]
    assert "has no character yet; make one with" in refused(tmp_path, *talk, "甲")
    (tmp_path / "file").write_bytes(b"")
    assert "name another --store" in refused(tmp_path, *create, "--store", "file/below")
    assert "甲" in succeeded(tmp_path, *create)
    assert "--replace" in refused(tmp_path, *create)
    assert "no character '乙'; it has 甲" in refused(tmp_path, *talk, "乙")


# Help


def verbs(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    yield path, command
    if isinstance(command, typer.core.TyperGroup):
        for name, below in command.commands.items():
            yield from verbs(below, (*path, name))


VERBS = dict(verbs(typer.main.get_command(app)))


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_help_says_what_a_verb_does_and_what_each_argument_is(
    tmp_path: Path, path: tuple[str, ...]
) -> None:
    code, out, err = run(tmp_path, *path, "--help")
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    command = VERBS[path]
    assert isinstance(command, typer.core.TyperCommand | typer.core.TyperGroup)
    assert command.help and " ".join(command.help.split()) in said
    for parameter in command.params:
        assert isinstance(parameter, typer.core.TyperArgument | typer.core.TyperOption)
        assert parameter.help, f"{parameter.name} is not explained"
        assert " ".join(parameter.help.split()) in said
