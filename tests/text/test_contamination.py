"""Items of benchmarks are found however they are printed, and other text is not taken for them."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.config import ContaminationConfig
from indexlm.errors import DamagedError, UserError
from indexlm.text.block import Block
from indexlm.text.document import Document, Step
from indexlm.text.filters.contamination import (
    REASONS,
    build_index,
    contamination,
    load,
    made_from,
    stream_of,
)

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "ing")]
HAN = "".join(chr(code) for code in range(0x4E00, 0x4E00 + 1500))


def prose(rng: random.Random, language: str, length: int) -> str:
    """Sentences of made-up words, at least so many characters."""
    text = ""
    while len(text) < length:
        if language == "zh":
            text += "".join(rng.choices(HAN, k=rng.randint(5, 14))) + rng.choice("，。；")
        else:
            words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 3))) for _ in range(9)]
            text += " ".join(words).capitalize() + ". "
    return text


def quiz(rng: random.Random, language: str, number: int) -> list[dict[str, object]]:
    lengths = (26, 60) if language == "zh" else (80, 200)
    return [
        {
            "id": f"{language}-{index}",
            "question": prose(rng, language, rng.randint(*lengths))[:-1] + "?",
            "options": [prose(rng, language, 8 if language == "zh" else 20) for _ in range(4)],
        }
        for index in range(number)
    ]


def written(path: Path, rows: Sequence[dict[str, object]]) -> ContaminationConfig:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return ContaminationConfig(benchmarks=(str(path),))


def asked(step: Step, *texts: str) -> list[tuple[str, str]]:
    """Reason and item of each text."""
    block = Block([Document(str(n), text, "made", "en", "noisy") for n, text in enumerate(texts)])
    columns = step(block)
    return list(zip(columns["reason"], columns["item"]))


def respelt(rng: random.Random, text: str) -> str:
    """Another case, other marks, other spaces."""
    text = rng.choice([str, str.upper, str.title])(text)
    text = text.translate(str.maketrans({mark: rng.choice(" ,;:-—、\n") for mark in ".,，。；?"}))
    return "".join(letter + ("  " if rng.random() < 0.05 else "") for letter in text)


def test_fifty_of_fifty_planted_items_are_found_and_plain_text_is_kept(tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = quiz(rng, "zh", 200) + quiz(rng, "en", 200)
    step = contamination(written(tmp_path / "quiz.jsonl", rows))
    texts, expected = [], []
    for row in rng.sample(rows, 50):
        question, options = str(row["question"]), list(map(str, row["options"]))  # type: ignore[call-overload]
        rng.shuffle(options)
        printed = [f"{label}. {text}" for label, text in zip("ABCD", options)]
        planted = "\n".join([question, *printed]) if rng.random() < 0.5 else question
        before, behind = (prose(rng, rng.choice(["zh", "en"]), 3000) for _ in range(2))
        texts += [before + respelt(rng, planted) + behind, before + behind]
        expected += [("contaminated", f"quiz.jsonl:{row['id']}"), ("", "")]
    assert asked(step, *texts) == expected
    assert {reason for reason, _ in expected if reason} == set(REASONS)


SHORT = {
    "id": 1,
    "question": "最深的那口井是谁挖开的呢",
    "options": ["住在山后的石匠", "过路的卖盐商人", "村里的年轻木匠", "没有人能够知道"],
}


def test_a_short_question_is_told_by_its_options(tmp_path: Path) -> None:
    step = contamination(written(tmp_path / "quiz.jsonl", [SHORT]))
    question, (first, second, third, fourth) = str(SHORT["question"]), SHORT["options"]  # type: ignore[misc]
    found = ("contaminated", "quiz.jsonl:1")
    plain = "老人说起村里的事，" * 20
    assert asked(
        step,
        f"{plain}{question}？(A) {fourth} (B) {second} (C) {first} (D) {third}。{plain}",
        f"{plain}{question}？{first}，{second}，{third}。{plain}",
        f"{plain}{question}？我想是{first}。{plain}",
        f"{plain}{question}？{plain}{plain}{first}，{second}，{third}，{fourth}",
        f"{plain}{first}，{second}，{third}，{fourth}。{plain}",
    ) == [found, found, ("", ""), ("", ""), ("", "")]


def test_a_phrase_that_many_items_begin_with_drops_nothing(tmp_path: Path) -> None:
    rng = random.Random(2)
    phrase = "Which of the following statements about the structure and the function of "
    rows = [row | {"question": phrase + str(row["question"])} for row in quiz(rng, "en", 300)]
    step = contamination(written(tmp_path / "quiz.jsonl", rows))
    plain = prose(rng, "en", 500)
    texts = [plain + phrase + prose(rng, "en", 500), plain + str(rows[7]["question"]) + plain]
    assert asked(step, *texts) == [("", ""), ("contaminated", "quiz.jsonl:en-7")]


def test_an_item_that_says_too_little_is_listed_and_not_checked(tmp_path: Path) -> None:
    rows = [
        {"id": "word", "question": "女性生殖腺是", "options": ["卵巢与别的器官", "垂体与别的器官"]},
        {
            "id": "sum",
            "question": "下面这个算式最后的结果是多少",
            "options": ["12", "13", "14", "15"],
        },
        SHORT,
    ]
    config = written(tmp_path / "quiz.jsonl", rows)
    path = tmp_path / "index"
    notes = build_index(config, path)
    assert (notes["items"], notes["unchecked"]) == ({"quiz": 3}, {"quiz": 2})
    unchecked = [("quiz", "quiz.jsonl:word"), ("quiz", "quiz.jsonl:sum")]
    assert load(path).unchecked() == unchecked
    texts = [
        "女性生殖腺是：卵巢与别的器官，垂体与别的器官",
        "下面这个算式最后的结果是多少，12 13 14 15",
    ]
    assert asked(contamination(config, path), *texts) == [("", ""), ("", "")]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_the_overlap_is_the_share_of_n_grams_whatever_stands_before(
    tmp_path_factory: pytest.TempPathFactory, seed: int, data: st.DataObject
) -> None:
    rng = random.Random(seed)
    language = rng.choice(["zh", "en"])
    question = prose(rng, language, data.draw(st.integers(100, 300)))
    config = written(tmp_path_factory.mktemp("quiz") / "quiz.jsonl", [{"question": question}])
    start, end = sorted(data.draw(st.integers(0, len(question))) for _ in range(2))
    before = prose(rng, "en", data.draw(st.integers(0, 9)))
    text = before + question[:start] + prose(rng, language, 9) + question[end:] + "."
    stream = stream_of([text])
    asked_stream = stream_of([question])[:-1]
    grams = {asked_stream[at : at + 48] for at in range(len(asked_stream) - 47)}
    share = sum(gram in stream for gram in grams) / len(grams)
    columns = contamination(config)(Block([Document("x", text, "made", "en", "noisy")]))
    assert columns["overlap"] == [share if share >= config.share else 0]
    assert columns["reason"] == ["contaminated" if share >= config.share else ""]


def test_of_several_items_the_one_that_stands_most_completely_is_named(tmp_path: Path) -> None:
    rng = random.Random(3)
    question = prose(rng, "en", 300)
    rows = [
        {"id": "changed", "question": question[:250] + prose(rng, "en", 50)},
        {"id": "whole", "question": question},
    ]
    step = contamination(written(tmp_path / "quiz.jsonl", rows))
    assert asked(step, question) == [("contaminated", "quiz.jsonl:whole")]


def test_the_answer_is_the_same_however_documents_are_cut_into_blocks(tmp_path: Path) -> None:
    rng = random.Random(4)
    rows = quiz(rng, "zh", 40) + quiz(rng, "en", 40) + [SHORT]
    step = contamination(written(tmp_path / "quiz.jsonl", rows))
    short = f"{SHORT['question']}{''.join(SHORT['options'])}"  # type: ignore[arg-type]
    texts = []
    for row in rows:
        text = short if row is SHORT else str(row["question"])
        kept = text[: rng.randint(len(text) // 2, len(text))]
        texts.append(prose(rng, "en", rng.randint(0, 9)) + kept)
    together = asked(step, *texts)
    assert 10 < sum(reason != "" for reason, _ in together) < len(texts)
    assert together == [asked(step, text)[0] for text in texts]
    assert together == [asked(step, "xyz"[: n % 4] or "-", text)[1] for n, text in enumerate(texts)]


def test_text_without_a_letter_is_kept(tmp_path: Path) -> None:
    step = contamination(written(tmp_path / "quiz.jsonl", [SHORT]))
    assert asked(step, "……", "-", "?") == [("", "")] * 3


def test_an_index_on_disk_answers_as_one_in_memory_and_has_equal_bytes(tmp_path: Path) -> None:
    rng = random.Random(5)
    rows = quiz(rng, "zh", 30) + quiz(rng, "en", 30)
    config = written(tmp_path / "quiz.jsonl", rows)
    build_index(config, tmp_path / "one")
    build_index(config, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    texts = [str(row["question"]) for row in rows]
    built, mapped = contamination(config), contamination(config, tmp_path / "one")
    assert asked(mapped, *texts) == asked(built, *texts)
    assert all(reason for reason, _ in asked(mapped, *texts))


def test_what_an_index_is_made_from_changes_with_items_and_settings_only(tmp_path: Path) -> None:
    rows = quiz(random.Random(6), "en", 3)
    config = written(tmp_path / "quiz.jsonl", rows)
    (tmp_path / "elsewhere").mkdir()
    same = written(tmp_path / "elsewhere" / "quiz.jsonl", rows)
    assert made_from(same) == made_from(config)
    assert made_from(config.model_copy(update={"share": 0.7})) != made_from(config)
    assert made_from(written(tmp_path / "elsewhere" / "quiz.jsonl", rows[:2])) != made_from(config)


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    config = written(tmp_path / "quiz.jsonl", [SHORT])
    build_index(config, tmp_path / "index")
    (tmp_path / "index").write_bytes((tmp_path / "index").read_bytes()[:-100])
    with pytest.raises(DamagedError, match="no index"):
        contamination(config, tmp_path / "index")


def test_a_benchmark_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        contamination(ContaminationConfig(benchmarks=(str(tmp_path / "absent"),)))


def test_a_question_told_by_itself_has_an_n_gram() -> None:
    with pytest.raises(ValueError, match="question_bytes=40 is less than gram_bytes=48"):
        ContaminationConfig(question_bytes=40)
