"""Settings: what is asked is what runs, and what cannot be asked is named with its remedy."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm import recipes
from indexlm.config import AnyRecipe, Continuation, ConversationConfig
from indexlm.errors import UserError
from indexlm.model.sizes import SIZES
from indexlm.recipes import long32k, lora, tiny
from indexlm.records import write_json
from indexlm.settings import load_recipe, recipe_from, with_overrides

TINY = tiny.recipe()
LORA = lora.recipe()
LONG = long32k.tiny()

characters = st.characters(exclude_categories=["Cs"])
# A dot in a name of a source would be a path; `=` ends the path.
source_names = st.text(st.characters(exclude_characters=".=", exclude_categories=["Cs"]))
shares = st.floats(1e-6, 1e6)


def refusal(*overrides: str, of: AnyRecipe = TINY) -> str:
    """The message with which the settings are refused."""
    with pytest.raises(UserError) as caught:
        with_overrides(of, overrides)
    return str(caught.value)


def saved(recipe: AnyRecipe, folder: Path) -> Path:
    path = folder / "config.json"
    write_json(path, recipe.model_dump(mode="json"))
    return path


# Settings


def test_settings_change_what_they_name_and_nothing_else() -> None:
    changed = with_overrides(
        TINY,
        [
            "pretrain.steps=50",
            "character.sft.optimiser.lr=3e-4",
            "model.norm_head=false",
            'text.inputs=["a.txt"]',
            "character.description=谋士，字孔明=卧龙",
            "seed=7",
        ],
    )
    assert changed.pretrain.steps == 50 and changed.seed == 7
    assert changed.character.sft.optimiser.lr == 3e-4
    assert changed.model.norm_head is False
    assert changed.text.inputs == ("a.txt",)
    assert changed.character.description == "谋士，字孔明=卧龙"
    undone = with_overrides(
        changed,
        [
            f"pretrain.steps={TINY.pretrain.steps}",
            f"character.sft.optimiser.lr={TINY.character.sft.optimiser.lr}",
            "model.norm_head=true",
            f"text.inputs={json.dumps(TINY.text.inputs)}",
            f"character.description={TINY.character.description}",
            f"seed={TINY.seed}",
        ],
    )
    assert undone == TINY


def test_the_later_of_two_equal_settings_holds_and_the_recipe_given_stays() -> None:
    before = TINY.model_dump()
    assert with_overrides(TINY, ["seed=1", "seed=2"]).seed == 2
    assert with_overrides(TINY, []) == TINY
    assert TINY.model_dump() == before


def test_settings_that_fit_only_together_are_taken_together() -> None:
    assert refusal("model.heads=8", "model.kv_heads=3")
    assert with_overrides(TINY, ["model.kv_heads=2", "model.heads=8"]).model.kv_heads == 2


@settings(max_examples=50)
@given(name=source_names.filter(bool), share=shares)
def test_a_mixture_may_name_any_source(name: str, share: float) -> None:
    changed = with_overrides(TINY, [f"base.mixture.{name}={share!r}"])
    assert changed.base.mixture == {**TINY.base.mixture, name: share}


def test_a_section_can_be_given_whole() -> None:
    assert with_overrides(TINY, ['base={"steps": 5, "mixture": {"a": 1}}']).base.steps == 5
    assert refusal('base={"steps": 5}').endswith("base.mixture is missing")
    message = refusal('base={"steps": 5, "mixtur": {}, "mixture": {"a": 1}}')
    assert "unknown key 'base.mixtur'; did you mean 'mixture'?" in message


@pytest.mark.parametrize(
    ("setting", "nearest"),
    [
        ("pretrain.step=5", "pretrain.steps"),
        ("pretrian.steps=5", "pretrain"),
        ("pretrain.optimizer.lr=1", "pretrain.optimiser"),
        ("character.sft.optimiser.learning=1", "character.sft.optimiser.lr"),
        ("pretrain.wandb=1", None),
        ("character.dpo.bta=0.2", "character.dpo.beta"),
        ("model.hiden=64", "model.hidden"),
        ("=5", None),
        ("pretrain.=5", None),
    ],
)
def test_an_unknown_setting_is_named_with_the_nearest(setting: str, nearest: str | None) -> None:
    message = refusal(setting)
    assert message.startswith(f"unknown setting {setting.partition('=')[0]!r}")
    hint = re.search(r"did you mean (\S+)\?", message)
    assert (hint and hint[1]) == nearest
    assert "known here: " in message


@pytest.mark.parametrize("name", ["pretrain", "model", "character.dpo", "sft.optimiser"])
@pytest.mark.parametrize("value", ["5", "text", "null", "[]", ""])
def test_a_section_is_not_a_setting(name: str, value: str) -> None:
    assert refusal(f"{name}={value}").startswith(f"{name!r} is a section, not a setting")


def test_a_setting_is_not_a_section() -> None:
    assert "'steps' is a setting, not a section" in refusal("pretrain.steps.x=1")
    assert "'zh_curated' is a setting, not a section" in refusal("base.mixture.zh_curated.x=1")


def test_a_word_without_an_equals_sign_is_told_the_form() -> None:
    assert "'pretrain.steps'" in (message := refusal("pretrain.steps"))
    assert "section.key=value" in message


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("pretrain.steps=0", "pretrain.steps=0: Input should be greater than or equal to 1"),
        ("pretrain.steps=1.5", "pretrain.steps=1.5: Input should be a valid integer"),
        ("pretrain.steps=many", "pretrain.steps='many': Input should be a valid integer"),
        ("pretrain.steps=" + "1" * 5000, "pretrain.steps='111"),
        ("threads=-1", "threads=-1: Input should be greater than or equal to 0"),
        ("seed=-1", "seed=-1: Input should be greater than or equal to 0"),
        ("text.language=fr", "text.language='fr': Input should be 'auto', 'zh', 'en' or 'code'"),
        ("text.held_out_share=0.5", "text.held_out_share=0.5: Input should be less than 0.5"),
        ("sft.optimiser.lr=0", "sft.optimiser.lr=0: Input should be greater than 0"),
        ("sft.optimiser.lr=NaN", "sft.optimiser.lr=nan: Input should be a finite number"),
        ("sft.optimiser.lr=Infinity", "sft.optimiser.lr=inf: Input should be a finite number"),
        ("sft.optimiser.beta1=1", "sft.optimiser.beta1=1: Input should be less than 1"),
        ("sft.optimiser.eps=0", "sft.optimiser.eps=0: Input should be greater than 0"),
        ("base.mixture.a=-1", "base.mixture.a=-1: Input should be greater than or equal to 0"),
        ("base.mixture=5", "base.mixture=5: Input should be a valid dictionary"),
        ("base.mixture={}", "base.mixture: {} gives no source a share above 0"),
        ("model.hidden=130", "model: hidden=130 is not a multiple of heads=3"),
        ("dpo.batch=24", "dpo: batch=24 is not a multiple of micro_batch=16"),
        ("text.inputs=corpus", "text.inputs='corpus': Input should be a valid tuple"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_rule(setting: str, said: str) -> None:
    assert f"the command line: {said}" in refusal(setting)


def test_every_bad_value_is_named_at_once() -> None:
    message = refusal("pretrain.steps=0", "seed=x")
    assert "pretrain.steps=0" in message and "seed='x'" in message


# Named sizes


@pytest.mark.parametrize("name", SIZES)
def test_a_named_size_is_that_shape_with_the_vocabulary_and_the_window_of_the_recipe(
    name: str,
) -> None:
    model = with_overrides(TINY, [f"model={name}"]).model
    kept = {"vocab_size": TINY.model.vocab_size, "context": TINY.model.context}
    assert model == SIZES[name].model_copy(update=kept)


def test_settings_after_a_size_change_it_and_those_before_it_are_lost() -> None:
    ten = with_overrides(TINY, ["model=10m"]).model
    changed = with_overrides(TINY, ["model.layers=3", "model=10m", "model.ffn=512"]).model
    assert changed == ten.model_copy(update={"ffn": 512})
    longer = with_overrides(TINY, ["model.context=512", "model=10m"]).model
    assert longer == ten.model_copy(update={"context": 512})
    assert with_overrides(TINY, ["model={}", "model=1m"]).model == SIZES["1m"]


@pytest.mark.parametrize("name", ["12m", "10M", "1.9B", "tiny"])
def test_an_unknown_size_is_told_the_known_ones(name: str) -> None:
    message = refusal(f"model={name}")
    assert "'model' is a section" in message and "10m-deep, 10m-shallow" in message
    assert "unknown setting 'model'" in refusal(f"model={name}", of=LORA)


# Continuations


def test_settings_of_a_continuation_change_what_they_name_and_nothing_else() -> None:
    changed = with_overrides(
        LONG,
        [
            "parent=models/mine",
            "window.context=2048",
            "pretrain.mixture.zh_curated=0.5",
            'sft.files=["a.jsonl", "b.json"]',
            "sft.limit=null",
        ],
    )
    assert (changed.parent, changed.window.context) == ("models/mine", 2048)
    assert changed.pretrain.mixture == {**LONG.pretrain.mixture, "zh_curated": 0.5}
    assert changed.sft == LONG.sft.model_copy(
        update={"files": ("a.jsonl", "b.json"), "limit": None}
    )
    assert changed.text == LONG.text and changed.window.rope_base == LONG.window.rope_base


def test_sections_of_a_continuation_are_left_out_with_null_and_put_in_whole() -> None:
    full = with_overrides(LORA, ["lora=null"])
    assert full.lora is None and full.sft == LORA.sft
    assert with_overrides(full, ['lora={"rank": 32}']) == LORA
    alone = with_overrides(LONG, ["sft=null"])
    assert alone.sft is None and alone.pretrain == LONG.pretrain
    message = refusal("lora.rank=8", of=full)
    assert "has no section 'lora'; give it whole" in message and "lora='{...}' with rank" in message
    assert refusal("model=null").startswith("'model' is a section, not a setting")


@pytest.mark.parametrize(
    ("of", "overrides", "said"),
    [
        (LORA, ["sft=null", "lora=null"], "there is nothing to train"),
        (LORA, ["sft=null"], "there is nothing to train"),
        (LONG, ["sft=null", "lora={}"], "lora is set without sft"),
        (LONG, ["text=null"], "pretrain and text go together"),
        (LONG, ["pretrain=null"], "pretrain and text go together"),
        (LORA, ["text={}"], "pretrain and text go together"),
        (LORA, ["parent="], "parent=''"),
        (LORA, ["sft.batch=6"], "sft: batch=6 is not a multiple of micro_batch=4"),
        (LORA, ["sft.files=a.jsonl"], """write a list: sft.files='["a.jsonl"]'"""),
        (LORA, ["sft.files=[]"], "sft.files=[]"),
        (LORA, ["sft.epochs=0"], "sft.epochs=0: Input should be greater than 0"),
        (LORA, ["sft.warmup_share=1"], "sft.warmup_share=1: Input should be less than 1"),
        (LORA, ["sft.optimizer.lr=1"], "did you mean sft.optimiser?"),
        (LORA, ["lora.r=8"], "unknown setting 'lora.r'; did you mean lora.rank?"),
        (LORA, ["lora.dropout=1"], "lora.dropout=1: Input should be less than 1"),
        (LORA, ['lora.targets=["qproj"]'], "'q_proj', 'k_proj'"),
        (LORA, ['lora.targets=["q_proj", "q_proj"]'], "names a projection twice"),
        (LORA, ["kind=recipe"], "kind='recipe': Input should be 'continuation'"),
        (LONG, ["window.context=4"], "window.context=4: Input should be greater than or equal"),
        (LONG, ["window.context=2097152"], "window.context=2097152: Input should be less than"),
        (LONG, ["window.rope_base=0"], "window.rope_base=0: Input should be greater than 0"),
        (LONG, ["window.base=5"], "unknown setting 'window.base'; did you mean"),
        (LONG, ["pretrain.mixture={}"], "gives no source a share above 0"),
    ],
)
def test_a_continuation_that_makes_no_sense_is_named_with_its_rule(
    of: Continuation, overrides: list[str], said: str
) -> None:
    assert said in refusal(*overrides, of=of)


@pytest.mark.parametrize("recipe", [LORA, LONG, long32k.recipe()], ids=lambda each: each.name)
def test_a_saved_continuation_loads_equal(tmp_path: Path, recipe: Continuation) -> None:
    assert load_recipe(saved(recipe, tmp_path)) == recipe
    assert recipes.find(str(tmp_path / "config.json")) == recipe


def test_a_wrong_key_of_a_saved_continuation_is_named(tmp_path: Path) -> None:
    tree = LORA.model_dump(mode="json")
    tree["sft"]["epoch"] = tree["lora"]["r"] = 1
    with pytest.raises(UserError) as caught:
        recipe_from(tree, "the tree")
    assert "unknown key 'sft.epoch'; did you mean 'epochs'?" in str(caught.value)
    assert "unknown key 'lora.r'; did you mean 'rank'?" in str(caught.value)


@settings(max_examples=50)
@given(
    rows=st.integers(1, 10_000),
    epochs=st.floats(0.01, 20),
    batch=st.integers(1, 64),
    warmup=st.floats(0, 1, exclude_max=True),
)
def test_conversations_are_seen_as_often_as_epochs_say(
    rows: int, epochs: float, batch: int, warmup: float
) -> None:
    config = ConversationConfig(
        files=("a.jsonl",), epochs=epochs, batch=batch, micro_batch=1, warmup_share=warmup
    )
    stage = config.as_stage(rows)
    assert stage.steps >= 1 and 0 <= stage.schedule.warmup <= stage.steps
    assert stage.steps == 1 or abs(stage.steps * batch - rows * epochs) <= batch / 2 + 1e-6
    assert (stage.batch, stage.optimiser) == (batch, config.optimiser)


# Saved recipes


@settings(max_examples=40)
@given(
    lr=st.floats(0, exclude_min=True, allow_infinity=False),
    mixture=st.dictionaries(st.text(characters), shares, min_size=1),
    description=st.text(characters),
    inputs=st.lists(st.text(characters), max_size=3),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_saved_recipe_loads_equal(
    tmp_path_factory: pytest.TempPathFactory,
    lr: float,
    mixture: dict[str, float],
    description: str,
    inputs: list[str],
    seed: int,
) -> None:
    settings_given = {
        "pretrain.optimiser.lr": lr,
        "pretrain.mixture": mixture,
        "character.description": description,
        "text.inputs": inputs,
        "seed": seed,
    }
    overrides = [f"{path}={json.dumps(value)}" for path, value in settings_given.items()]
    recipe = with_overrides(TINY, overrides)
    assert recipe.pretrain.mixture == mixture and recipe.pretrain.optimiser.lr == lr
    assert recipe.text.inputs == tuple(inputs) and recipe.character.description == description
    assert load_recipe(saved(recipe, tmp_path_factory.mktemp("saved"))) == recipe


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"steps: 5",
        b"\xff\xfe\x00",
        '{"name": "中"}'.encode("gb18030"),
        "\ufeff{}".encode(),
    ],
)
def test_a_file_that_is_not_json_in_utf8_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))} is not a saved recipe"):
        load_recipe(path)


@pytest.mark.parametrize("content", ["[]", "null", "5", '"tiny"', "{}"])
def test_json_that_is_no_recipe_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: "):
        load_recipe(path)


def test_a_key_of_another_version_is_named_with_its_place(tmp_path: Path) -> None:
    tree = TINY.model_dump(mode="json")
    tree["sft"]["optimiser"]["learning_rate"] = 1
    tree["wandb"] = {}
    path = tmp_path / "config.json"
    write_json(path, tree)
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    assert "unknown key 'sft.optimiser.learning_rate'" in str(caught.value)
    assert "unknown key 'wandb'" in str(caught.value)
    del tree["sft"]["optimiser"]["learning_rate"], tree["wandb"]
    assert recipe_from(tree, "the tree") == TINY


# Finding a recipe


def test_a_recipe_is_found_by_name() -> None:
    assert recipes.find("tiny") == TINY
    assert (recipes.find("lora"), recipes.find("long-tiny")) == (LORA, LONG)
    assert recipes.find("long32k") == long32k.recipe()


def test_a_recipe_is_found_in_a_python_file(tmp_path: Path) -> None:
    path = tmp_path / "my recipe.py"
    path.write_text(
        "from indexlm.settings import with_overrides\n"
        "from indexlm.recipes import tiny\n"
        "def recipe():\n"
        "    return with_overrides(tiny.recipe(), ['name=mine', 'seed=5'])\n",
        encoding="utf-8",
    )
    assert recipes.find(str(path)) == with_overrides(TINY, ["name=mine", "seed=5"])


def test_a_recipe_is_found_in_the_config_of_a_run(tmp_path: Path) -> None:
    changed = with_overrides(TINY, ["pretrain.steps=3"])
    assert recipes.find(str(saved(changed, tmp_path))) == changed


@pytest.mark.parametrize(
    "source", ["", "recipe = 5\n", "def recipe():\n    return 5\n", "def recipes():\n    pass\n"]
)
def test_a_python_file_without_a_recipe_is_told_what_it_lacks(tmp_path: Path, source: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))} has no function recipe\(\)"):
        recipes.find(str(path))


def test_a_bad_value_in_a_python_file_is_named_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from indexlm.config import OptimiserConfig\n"
        "def recipe():\n    return OptimiserConfig(lr=-3)\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        recipes.find(str(path))
    assert "lr" in str(caught.value) and "-3" in str(caught.value)


def test_an_unknown_recipe_is_told_the_known_ones() -> None:
    for name in ("tinny", "missing.py", "runs/tiny", ""):
        with pytest.raises(UserError, match=f"no recipe {name!r}; name one of tiny"):
            recipes.find(name)


def test_a_run_that_never_started_has_no_config() -> None:
    with pytest.raises(UserError, match=r"nowhere/config\.json does not exist"):
        recipes.find("nowhere/config.json")
