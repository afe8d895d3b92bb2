"""The verbs of the tokenizer on a refined folder and on a user's own files."""

import json
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pytest
from typer.testing import CliRunner

from indexlm.cli import app
from indexlm.errors import StoppedError, UserError
from indexlm.records import publish, verify, write_json
from indexlm.text.document import Document
from indexlm.text.jsonl import write_jsonl
from indexlm.tokens import encode
from indexlm.tokens.tokenizer import FILE_NAME, Tokenizer


def row(number: int, text: str, language: str) -> dict[str, str]:
    document = Document(f"tales/{number}", text, "tales", language, "noisy")
    return {name: getattr(document, name) for name in Document.__dataclass_fields__}


@pytest.fixture(scope="module")
def text(
    bilingual: Mapping[str, tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A refined folder, its Chinese in two files."""
    folder = tmp_path_factory.mktemp("refined") / "text"
    with publish(folder, "refined") as made:
        for language, lines in bilingual.items():
            rows = [row(number, line, language) for number, line in enumerate(lines)]
            halves = (rows[::2], rows[1::2]) if language == "zh" else (rows,)
            for number, half in enumerate(halves):
                write_jsonl(made / "train" / f"{language}_noisy.{number:05}.jsonl.zst", half)
            write_jsonl(made / "held_out" / f"{language}_noisy.jsonl.zst", rows[:3])
        records = [{"query": "春天？", "response": "来了", "source": "tales"}]
        write_jsonl(made / "instruction.jsonl.zst", records)
        write_json(made / "funnel.json", {})
    return folder


def ran(*arguments: object) -> str:
    """What the command wrote; what it raises is raised."""
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def model(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tokenizer"
    assert "560 pieces" in ran("tokenizer", "train", text, "--out", folder, "--vocab-size", 560)
    verify(folder)
    return folder


def test_text_is_encoded_once_and_what_is_finished_is_known(
    text: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tokens"
    said = ran("data", "tokens", text, "--tokenizer", model, "--out", out)
    assert re.findall(r"^(\w+) +(\d+) documents", said, re.MULTILINE) == [
        ("en_noisy", "32"),
        ("zh_noisy", "32"),
        ("instruction", "1"),
    ]
    verify(out)
    # Its file does as well as its folder.
    again = ran("data", "tokens", text, "--tokenizer", model / FILE_NAME, "--out", out)
    assert again == said


def test_a_folder_of_other_tokens_is_not_written_over(
    text: Path, model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    ran("tokenizer", "train", text, "--out", other, "--vocab-size", 530)
    out = tmp_path / "tokens"
    ran("data", "tokens", text, "--tokenizer", model, "--out", out)
    with pytest.raises(UserError, match=re.escape(f"{out} exists")):
        ran("data", "tokens", text, "--tokenizer", other, "--out", out)
    assert not list(tmp_path.glob(".*"))


def test_ctrl_c_says_that_the_same_command_goes_on(
    text: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    command = ("data", "tokens", text, "--tokenizer", model, "--out", tmp_path / "tokens")
    with monkeypatch.context() as patch, pytest.raises(StoppedError, match="goes on"):
        patch.setattr(encode._Source, "append", interrupted)
        ran(*command)
    assert "zh_noisy" in ran(*command)


@pytest.mark.parametrize("verb", [("data", "tokens"), ("tokenizer", "train")])
def test_text_that_is_not_refined_is_refused(
    model: Path, tmp_path: Path, verb: tuple[str, str]
) -> None:
    more = ("--tokenizer", model) if verb[0] == "data" else ()
    with pytest.raises(UserError, match="holds no refined text"):
        ran(*verb, tmp_path, *more, "--out", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_more_pieces_than_the_sample_gives_are_refused_with_both_remedies(
    text: Path, tmp_path: Path
) -> None:
    command = ("tokenizer", "train", text, "--out", tmp_path / "t", "--vocab-size", 9000)
    with pytest.raises(UserError, match="--vocab-size asks for 9000") as caught:
        ran(*command)
    assert "ask for fewer" in str(caught.value) and "--sample-bytes" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_is_learned_from_all_files(tmp_path: Path) -> None:
    """The beginning of the text alone would fill the sample."""
    others = ["".join(each) for each in product("bdfg", "aeiou", "klmn", "aeiou")]
    with publish(tmp_path / "text", "refined") as made:
        for number, word in enumerate(("river", "mountain")):
            texts = [f"the {word} " + " ".join(others[n : n + 20]) for n in range(200)]
            rows = [row(1000 * number + n, text, "en") for n, text in enumerate(texts)]
            write_jsonl(made / "train" / f"en_noisy.{number}.jsonl.zst", rows)
        write_json(made / "funnel.json", {})
    size = ("--vocab-size", 512, "--sample-bytes", 12_000)
    ran("tokenizer", "train", tmp_path / "text", "--out", tmp_path / "t", *size)
    tokenizer = Tokenizer.load(tmp_path / "t")
    assert len(tokenizer.encode(" river")) == len(tokenizer.encode(" mountain")) == 1


def test_a_report_takes_held_out_text_and_a_users_own(
    text: Path, model: Path, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.jsonl").write_text('{"text": "春天来了"}\n{"text": 5}\n')
    (tmp_path / "notes.txt").write_text("The river was wide and slow, and he came home.")
    found = json.loads(
        ran(
            *("tokenizer", "report", model, place / "bytes.json", "--json"),
            *("--data", text, "--data", tmp_path / "mine.jsonl", "--data", tmp_path / "notes.txt"),
        )
    )
    sizes = {language: each["documents"] for language, each in found["texts"].items()}
    assert sizes == {"en": 3 + 1, "zh": 3 + 1, "all": 8}
    assert list(found["tokenizers"]) == [str(model), str(place / "bytes.json")]
    table = ran("tokenizer", "report", model, "--data", text)
    assert table.splitlines()[0].split() == ["text", "en", "zh", "all"]
    assert "bytes per token" in table


def test_a_report_on_nothing_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        ran("tokenizer", "report", model, "--data", tmp_path / "nowhere")
    (tmp_path / "blank.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(UserError, match="holds no text"):
        ran("tokenizer", "report", model, "--data", tmp_path / "blank.jsonl")
