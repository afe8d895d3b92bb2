"""An arm is settings that fit together and a fingerprint of all that its numbers depend on."""

import pytest
from pydantic import ValidationError

from indexlm.lab.arms import Arm, ChatData, TextData, TextPhase
from indexlm.lab.reference import reference, shape, text, training
from indexlm.lab.world import WorldConfig


def test_the_name_of_an_arm_is_not_in_its_fingerprint_and_all_else_is() -> None:
    """Two studies that need the same arm share it."""
    arm = reference(0)
    assert reference(0, "another name").fingerprint() == arm.fingerprint()
    changed = [
        reference(1),
        reference(0, train=training(lr=1e-3)),
        reference(0, data=text(hq=0.5, web=0.5)),
        reference(0, head_rows=1.0),
        reference(0, detached_head=True),
        reference(0, model=shape(WorldConfig(), 48)),
        reference(0, world=WorldConfig(seed=1), model=shape(WorldConfig(seed=1))),
    ]
    assert len({each.fingerprint() for each in [arm, *changed]}) == len(changed) + 1


def test_a_fork_is_another_one_where_its_trunk_is() -> None:
    def fork(trunk: Arm) -> Arm:
        return reference(0, "fork", train=training(500), trunk=trunk)

    trunks = [reference(0), reference(0, train=training(lr=1e-3)), reference(0, "renamed")]
    first, other, same = (fork(trunk).fingerprint() for trunk in trunks)
    assert first != other
    assert first == same


def test_a_text_fork_counts_on_and_fine_tuning_starts_anew() -> None:
    trunk = reference(0)
    assert reference(0, train=training(500), trunk=trunk).first_step == 400
    assert reference(0, train=training(500), trunk=trunk, from_step=200).first_step == 200
    assert reference(0, data=ChatData(), trunk=trunk).first_step == 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data": ChatData()}, "chat starts from a trunk, and it has none"),
        ({"trunk": reference(0), "model": shape(WorldConfig(), 48)}, "another model or world"),
        ({"trunk": reference(0), "from_step": 500, "train": training(600)}, "after its end"),
        ({"trunk": reference(0), "train": training(400)}, "no step is left"),
        ({"model": shape(WorldConfig(), vocab_size=100)}, "vocab_size=100"),
        ({"held_lr": 0.5, "trunk": reference(0), "data": ChatData()}, "held_lr"),
        ({"data": text(books=1.0)}, "books"),
        ({"learning_rate": 3}, "learning_rate"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        reference(0, **changed)


def test_an_arm_is_read_back_as_it_was_written() -> None:
    phases = (TextPhase(shares={"hq": 1.0}), TextPhase(first_step=400, shares={"web": 1.0}))
    fork = reference(3, train=training(500), trunk=reference(3), data=TextData(phases=phases))
    assert Arm.model_validate_json(fork.model_dump_json()) == fork
