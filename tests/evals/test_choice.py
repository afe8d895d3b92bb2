"""Every option's log-likelihood is what a pass over the whole prompt by itself gives."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.conftest import EN, ZH, small_network
from indexlm.errors import UserError
from indexlm.evals.choice import Answers, answer
from indexlm.evals.items import Item
from indexlm.evals.pairs import encode_pairs_whole
from indexlm.evals.prompts import Asked
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import EOS, Tokenizer

WINDOW = 256
EXAMPLES = f"Read the text.\n\n{EN[0]}\nAnswer: B\n\n{ZH[1]}\nAnswer: A\n\n"
LETTERS = (" A", " B", " C", " D")


@pytest.fixture(scope="module")
def network(tokenizer: Tokenizer) -> Transformer:
    return small_network(tokenizer, WINDOW, heads=4)


def asked(
    number: int,
    question: str,
    options: Sequence[str] = ("the river", "the garden", "春天", "行人"),
    *,
    letters: bool = True,
    before: str = EXAMPLES,
) -> Asked:
    item = Item(str(number), question, tuple(options), 1, f"test/rivers.csv:{number + 1}", {})
    scored = LETTERS if letters else tuple(f" {option}" for option in options)
    shown = "".join(f"{letter}. {o}\n" for letter, o in zip("ABCD", options)) if letters else ""
    context = f"{before}{question}\n{shown}Answer:"
    return Asked(item, context, scored, None if letters else "Answer:")


def some_items(*, letters: bool) -> list[Asked]:
    questions = [*EN, *ZH, "What?", "春天来了，河边"]
    return [asked(number, text[:60], letters=letters) for number, text in enumerate(questions)]


def reference(
    network: Transformer, tokenizer: Tokenizer, context: str, option: str, start: Sequence[int]
) -> tuple[float, int]:
    """Log-likelihood and tokens of an option, by one pass over its row alone."""
    ((ids, given_ids),) = encode_pairs_whole(tokenizer, [(context, option)])
    row, first = [*start, *ids], len(start) + given_ids
    row_T = torch.tensor(row)
    with torch.no_grad():
        logits_TV = network.logits(network(row_T[None, :-1])[0]).double()
    chosen_T = logits_TV.log_softmax(1).gather(1, row_T[1:, None])[:, 0]
    return float(chosen_T[first - 1 :].sum()), len(row) - first


@pytest.mark.parametrize("letters", [True, False], ids=["letters", "contents"])
@pytest.mark.parametrize("start", ["none", "end-mark"])
def test_each_option_is_scored_as_by_itself(
    network: Transformer, tokenizer: Tokenizer, letters: bool, start: str
) -> None:
    items = some_items(letters=letters)
    ids = [EOS] if start == "end-mark" else []
    found = answer(network, tokenizer, items, start=start)
    assert [each.item for each in found.answered] == [each.item for each in items]
    for each, told in zip(items, found.answered):
        wanted = [reference(network, tokenizer, each.context, o, ids) for o in each.continuations]
        assert told.logprobs == pytest.approx([logprob for logprob, _ in wanted], abs=1e-4)
        assert told.tokens == tuple(tokens for _, tokens in wanted)
        lengths = [1] * 4 if letters else list(map(len, each.item.options))
        assert told.characters == tuple(lengths) and not told.cut
        if letters:
            assert told.unconditional is None
        else:
            alone = [reference(network, tokenizer, "Answer:", o, ids) for o in each.continuations]
            assert told.unconditional == pytest.approx([logprob for logprob, _ in alone], abs=1e-4)


def choices(answers: Answers) -> list[int]:
    return [max(range(4), key=each.logprobs.__getitem__) for each in answers.answered]


def test_answers_do_not_depend_on_batches_order_or_sharing(
    network: Transformer, tokenizer: Tokenizer
) -> None:
    items = [*some_items(letters=True), *some_items(letters=False)]
    found = answer(network, tokenizer, items)
    backward = answer(network, tokenizer, items[::-1])
    backward = replace(backward, answered=backward.answered[::-1])
    alone = answer(network, tokenizer, items, share=False)
    small = answer(network, tokenizer, items, batch_tokens=64)
    one_by_one = [answer(network, tokenizer, [each]).answered[0] for each in items]
    for other in (backward, alone, small, replace(found, answered=one_by_one)):
        assert choices(other) == choices(found)
        for one, same in zip(found.answered, other.answered):
            assert same.logprobs == pytest.approx(one.logprobs, abs=1e-4)
            assert same.prompt_sha256 == one.prompt_sha256
    assert len(set(choices(found))) > 1


def test_what_prompts_share_is_computed_once(network: Transformer, tokenizer: Tokenizer) -> None:
    """Counted: the examples, the question, and letters that differ in their last token alone."""
    items = some_items(letters=True)
    shared, alone = (answer(network, tokenizer, items, share=share) for share in (True, False))
    assert alone.naive == shared.naive
    assert alone.computed == alone.naive
    assert shared.computed < shared.naive / 4


def test_equal_options_tie(network: Transformer, tokenizer: Tokenizer) -> None:
    """To the last bit: it is the order, not rounding, that decides between them."""
    equal = asked(0, EN[0], ["the garden", "春天", "the garden", "春天"], letters=False)
    (told,) = answer(network, tokenizer, [equal]).answered
    assert told.logprobs[:2] == told.logprobs[2:] and told.logprobs[0] != told.logprobs[1]


def test_the_hash_is_of_the_text_that_the_model_is_given(
    network: Transformer, tokenizer: Tokenizer
) -> None:
    item = asked(0, EN[0])
    other = replace(item, continuations=(" A", " B", " C", " E"))
    told, changed = answer(network, tokenizer, [item, other]).answered
    text = "\0".join([item.context, *LETTERS])
    assert told.prompt_sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert changed.prompt_sha256 != told.prompt_sha256


@given(
    question=st.text(max_size=12),
    options=st.lists(st.text("ab 春。\n", max_size=6), min_size=2, max_size=4),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_scored_or_refused(
    network: Transformer, tokenizer: Tokenizer, question: str, options: list[str]
) -> None:
    item = asked(0, question, options, letters=False, before="")
    if all(option for option in options):
        (told,) = answer(network, tokenizer, [item]).answered
        assert all(logprob < 0 for logprob in told.logprobs) and min(told.tokens) > 0


# Longer than the window


def long_item(examples: int) -> Asked:
    return asked(3, ZH[0], before=EXAMPLES * examples)


def fewer(items: Sequence[Asked]) -> list[list[Asked]]:
    return [[long_item(count) for _ in items] for count in (3, 2, 1, 0)]


def test_a_prompt_longer_than_the_window_is_refused_with_its_place(
    network: Transformer, tokenizer: Tokenizer
) -> None:
    items = [asked(0, "What?"), long_item(4)]
    with pytest.raises(UserError) as told:
        answer(network, tokenizer, items)
    tokens = len(tokenizer.encode(items[1].context + " A")) - 1
    assert f"test/rivers.csv:4: a prompt of {tokens} tokens" in str(told.value)
    assert "window of 256" in str(told.value) and "--overflow" in str(told.value)


def test_the_left_end_is_cut_off_as_asked(network: Transformer, tokenizer: Tokenizer) -> None:
    """The window and one id more, since the last one is only a target."""
    item = long_item(4)
    short, told = answer(network, tokenizer, [asked(0, "What?"), item], overflow="cut").answered
    assert told.cut and not short.cut
    for option, logprob in zip(item.continuations, told.logprobs):
        ((ids, context),) = encode_pairs_whole(tokenizer, [(item.context, option)])
        row_T = torch.tensor(ids[-WINDOW - 1 :])
        with torch.no_grad():
            logits_TV = network.logits(network(row_T[None, :-1])[0])
        scored_T = logits_TV.log_softmax(1).gather(1, row_T[1:, None])[:, 0]
        assert logprob == pytest.approx(float(scored_T[context - len(ids) :].sum()), abs=1e-4)


def test_what_is_asked_without_the_question_is_whole_where_the_prompt_is_cut(
    network: Transformer, tokenizer: Tokenizer
) -> None:
    """Only what does not fit is cut, and by as much as it is too long itself."""
    item = asked(3, ZH[0], letters=False, before=EXAMPLES * 4)
    (told,) = answer(network, tokenizer, [item], overflow="cut").answered
    alone = [reference(network, tokenizer, "Answer:", o, ())[0] for o in item.continuations]
    assert told.cut and told.unconditional == pytest.approx(alone, abs=1e-4)
    # One id less before the option is another score.
    (shorter,) = encode_pairs_whole(tokenizer, [("Answer:", item.continuations[0])])
    row_T = torch.tensor(shorter[0][1:])
    with torch.no_grad():
        logits_TV = network.logits(network(row_T[None, :-1])[0])
    scored_T = logits_TV.log_softmax(1).gather(1, row_T[1:, None])[:, 0]
    assert float(scored_T[shorter[1] - 2 :].sum()) != pytest.approx(alone[0], abs=1e-2)


def test_as_few_examples_are_left_out_as_needed(network: Transformer, tokenizer: Tokenizer) -> None:
    items = [asked(0, "What?"), long_item(4)]
    found = answer(network, tokenizer, items, overflow="fewer", fewer=fewer(items))
    fits = [
        count
        for count in range(5)
        if len(tokenizer.encode(long_item(count).context + " A")) <= WINDOW + 1
    ]
    assert max(fits) in (1, 2, 3)
    wanted = answer(network, tokenizer, [items[0], long_item(max(fits))])
    assert [each.cut for each in found.answered] == [False, True]
    assert [each.prompt_sha256 for each in found.answered] == [
        each.prompt_sha256 for each in wanted.answered
    ]
    for one, other in zip(found.answered, wanted.answered):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("overflow", ["refuse", "cut", "fewer"])
def test_an_option_longer_than_the_window_cannot_be_scored(
    network: Transformer, tokenizer: Tokenizer, overflow: str
) -> None:
    item = asked(7, "What?", ["the river", "春天" * 200], letters=False, before="")
    with pytest.raises(UserError, match=r"test/rivers\.csv:8: .* window of 256"):
        answer(network, tokenizer, [item], overflow=overflow, fewer=[[item]])


@pytest.mark.parametrize("fewer", [False, True])
def test_an_option_that_joins_its_prompt_leaves_nothing_to_score(
    network: Transformer, tokenizer: Tokenizer, fewer: bool
) -> None:
    """As "the riv" and "er" are one word to the tokenizer, and `the` one piece less than ` th`."""
    joined = [
        (word[:at], word[at:])
        for line in EN
        for word in line.split()
        for at in range(1, len(word))
        if (len(tokenizer.encode(word)) < len(tokenizer.encode(word[:at]))) == fewer
        and len(tokenizer.encode(word)) <= len(tokenizer.encode(word[:at]))
    ]
    context, option = joined[0]
    item = replace(asked(2, "What?"), context=context, continuations=(option, " B"))
    with pytest.raises(UserError, match=r"test/rivers\.csv:3: the tokenizer joins"):
        answer(network, tokenizer, [item])


def test_another_vocabulary_than_the_models_is_refused(
    network: Transformer, tokenizer: Tokenizer
) -> None:
    changed = network.config.model_copy(update={"vocab_size": tokenizer.vocab_size + 1})
    with pytest.raises(UserError, match="pieces, the model vocab_size="):
        answer(Transformer(changed), tokenizer, [asked(0, "What?")])
