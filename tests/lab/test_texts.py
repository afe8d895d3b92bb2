"""Real text as a second corpus: encoded once, scored in bits per byte, known by what it is."""

import json
import random
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError
from small_arms import CPU
from typer.testing import CliRunner

from indexlm.cli import app
from indexlm.config import TokenizerConfig
from indexlm.errors import UserError
from indexlm.lab import on_text
from indexlm.lab.arms import Arm, ChatData, Watch
from indexlm.lab.outcome import outcome
from indexlm.lab.reference import reference
from indexlm.lab.running import run
from indexlm.lab.studies import study
from indexlm.lab.study import PresetName
from indexlm.lab.suite import Asked, run_studies
from indexlm.lab.texts import Corpus, encoded, scored_by
from indexlm.lab.workers import run_all
from indexlm.model.transformer import Transformer
from indexlm.text.refined import read_documents
from indexlm.tokens.tokenizer import Tokenizer
from indexlm.tokens.train_bpe import train

LETTERS = "春夏秋冬山水河海天地日月星云风雨雪花草树木鸟鱼虫马牛羊门窗书笔纸墨城乡道路桥船车行走坐立"
WORDS = ("river", "stone", "evening", "garden", "window", "letter", "morning", "harbour", "bread")


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the real command."""
    place = tmp_path_factory.mktemp("text")
    draw = random.Random(7)
    with (place / "raw.jsonl").open("w", encoding="utf-8") as file:
        for number in range(600):
            zh = "".join("".join(draw.choices(LETTERS, k=12)) + "。" for _ in range(6))
            en = " ".join("The " + " ".join(draw.choices(WORDS, k=9)) + "." for _ in range(4))
            row = {"text": (zh, en)[number % 2], "tier": "ordinary", "source": "tales"}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    made = CliRunner().invoke(
        app, ["data", "refine", str(place / "raw.jsonl"), "--out", str(place / "refined")]
    )
    assert made.exit_code == 0, made.output
    return place / "refined"


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.model"
    draw = random.Random(8)
    zh = ["".join(draw.choices(LETTERS, k=12)) + "。" for _ in range(400)]
    en = ["The " + " ".join(draw.choices(WORDS, k=9)) + "." for _ in range(400)]
    some = {"zh": zh, "en": en}
    return train(some, TokenizerConfig(vocab_size=520, zh_share=0.5), path)


@pytest.fixture(scope="module")
def corpus(refined: Path, bpe: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return encoded(refined, bpe.path, tmp_path_factory.mktemp("encoded"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    size = on_text.Size(16, 1, 8, 3.0, 32, 4, 10, 5e-3, 4)
    monkeypatch.setattr(on_text, "SIZES", {"quick": size})


def test_shares_are_those_of_the_text(corpus: Corpus, refined: Path) -> None:
    assert sum(corpus.shares.values()) == pytest.approx(1, abs=1e-3)
    assert {name.split("_")[0] for name in corpus.shares} == {"zh", "en"}


def test_an_arm_is_known_by_its_text_and_not_by_where_it_lies(
    small: None, corpus: Corpus, refined: Path, bpe: Tokenizer, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(refined, moved)
    other = encoded(moved, bpe.path, tmp_path / "elsewhere")
    one, two = (on_text.arm("quick", 0, each, "a").fingerprint() for each in (corpus, other))
    assert one == two
    changed = corpus.model_copy(update={"made_from": "another text"})
    assert on_text.arm("quick", 0, changed, "a").fingerprint() != one
    stamp = next(Path(other.tokens).glob("*.ids")).stat().st_mtime_ns
    assert encoded(moved, bpe.path, tmp_path / "elsewhere") == other
    assert next(Path(other.tokens).glob("*.ids")).stat().st_mtime_ns == stamp, "encoded once"


def test_bits_are_of_held_out_documents_that_no_arm_reads(
    small: None, corpus: Corpus, refined: Path
) -> None:
    model = Transformer(on_text.arm("quick", 0, corpus, "a").model)
    model.initialise(0)
    scores = scored_by(corpus, 4)(model)
    assert scores.keys() == {"bits/zh", "bits/en", "bits/all"}
    assert min(scores.values()) < scores["bits/all"] < max(scores.values())
    read = {
        document.text for file in (refined / "train").iterdir() for document in read_documents(file)
    }
    held = {
        document.text
        for file in (refined / "held_out").iterdir()
        for document in read_documents(file)
    }
    assert held and not read & held


def test_an_arm_learns_and_its_fork_goes_on(small: None, corpus: Corpus, tmp_path: Path) -> None:
    *_, trunk, decay = on_text.of_schedules("quick", 0, corpus)
    first = run(trunk, tmp_path, CPU)
    last = run(decay, tmp_path, CPU)
    assert (first.first_step, last.first_step) == (0, 8)
    assert first.curve[0]["loss"] > first.losses[-1]  # type: ignore[operator]
    assert last.scores["bits/all"] is not None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"watch": Watch()}, "real text has no questions"),
        ({"data": ChatData()}, "real text has no questions, nor chat data"),
        ({"data": on_text.TextData(phases=(on_text.TextPhase(shares={"hq": 1.0}),))}, "hq"),
        ({"model": reference(0).model}, "its world has 520"),
    ],
)
def test_what_does_not_fit_is_refused(
    small: None, corpus: Corpus, changed: dict[str, object], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        on_text.arm("quick", 0, corpus, "a", **changed)


@pytest.mark.parametrize("name", ["norm-head", "learning-rate", "schedules", "shape"])
def test_every_study_on_text_can_be_judged_and_drawn(
    small: None, corpus: Corpus, name: str, tmp_path: Path
) -> None:
    """Its arms on text alone, a few steps each."""
    from dataclasses import replace

    whole = study(name)
    more = whole.on_text
    assert more is not None
    asked = Asked("quick", tmp_path, seeds=2)
    arms: dict[str, dict[int, Arm]] = {}
    for seed in range(2):
        for arm in more.arms("quick", seed, corpus):
            arms.setdefault(arm.name, {})[seed] = arm
    flat = [arm for by_seed in arms.values() for arm in by_seed.values()]
    found = iter(run_all("test", flat, tmp_path, 1, CPU))
    results = {n: {seed: next(found) for seed in by_seed} for n, by_seed in arms.items()}
    alone = replace(whole, claims=more.claims, shown=more.shown)
    made = outcome(alone, asked.preset, results, 1.0, corpus)
    assert made["verdict"] == "inconclusive", "two seeds"
    text = json.dumps(made, ensure_ascii=False)
    assert str(tmp_path) not in text and corpus.text not in text and corpus.tokens not in text
    assert made["made"]["corpus"] == corpus.made_from
    names = {arm.name for arm in whole.arms("quick", 0)}
    assert not names & arms.keys()
    both = whole.with_text(corpus)
    assert len(both.claims) == len(whole.claims) + len(more.claims)
    assert both.claims[0] is whole.claims[0], "the verdict stays that of the world"


def test_text_without_a_tokenizer_is_refused(refined: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="belong together"):
        run_studies(["shape"], Asked("quick", tmp_path, text=refined))
    with pytest.raises(UserError, match="no refined text"):
        run_studies(["shape"], Asked("quick", tmp_path, text=tmp_path, tokenizer=tmp_path))


@pytest.mark.parametrize("preset", ["quick", "full", "gpu"])
def test_shapes_are_equal_in_what_they_are_said_to_be(preset: PresetName) -> None:
    corpus = Corpus(
        made_from="", vocab_size=8000, shares={"en": 1.0}, text="", tokenizer="", tokens=""
    )
    arms = on_text.of_shapes(preset, 0, corpus)
    deep, shallow, whole = (arm.model for arm in arms)
    equal = pytest.approx(shallow.non_embedding_parameters, rel=0.006)
    assert deep.non_embedding_parameters == equal
    assert whole.parameters == pytest.approx(shallow.parameters, rel=0.01)
    assert deep.layers == whole.layers == 4 * shallow.layers
    assert whole.head_dim < 2 * shallow.head_dim
