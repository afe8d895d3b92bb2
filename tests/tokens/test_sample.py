"""A sample is drawn alike from all text, and the same however the text is cut and ordered."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.text.document import Document
from indexlm.tokens.sample import draw


def document(name: str, text: str, language: str = "en") -> Document:
    return Document(name, text, "tales", language, "noisy")


corpora = st.lists(
    st.tuples(st.sampled_from(["zh", "en", "code"]), st.text(max_size=12)), max_size=40
).map(
    lambda rows: [
        document(f"tales/{number}", text, language) for number, (language, text) in enumerate(rows)
    ]
)


def size(documents: list[Document]) -> int:
    return sum(len(each.text.encode()) for each in documents)


@settings(max_examples=200)
@given(corpus=corpora, most=st.integers(1, 80), order=st.randoms(use_true_random=False))
def test_it_depends_on_ids_and_seed_alone(
    corpus: list[Document], most: int, order: random.Random
) -> None:
    found = draw(corpus, most, seed=3)
    shuffled = corpus[:]
    order.shuffle(shuffled)
    assert draw(shuffled, most, seed=3) == found


@settings(max_examples=200)
@given(corpus=corpora, most=st.integers(1, 80))
def test_it_has_as_much_as_was_asked_and_not_a_document_more(
    corpus: list[Document], most: int
) -> None:
    found = draw(corpus, most, seed=3)
    for language in {each.language for each in corpus}:
        all_of_it = [each for each in corpus if each.language == language]
        sample = found[language]
        assert set(sample) <= set(all_of_it) and len(set(sample)) == len(sample)
        if len(sample) < len(all_of_it):
            assert size(sample) >= most > size(sample[:-1])
        # A larger one begins with a smaller one.
        larger = draw(corpus, most + 20, seed=3)[language]
        assert larger[: len(sample)] == sample


def test_every_part_of_a_corpus_is_drawn_from_alike() -> None:
    corpus = [document(f"tales/{number}", "four") for number in range(4000)]
    places = [int(each.id.split("/")[1]) for each in draw(corpus, 4000, seed=5)["en"]]
    quarters = [sum(place // 1000 == quarter for place in places) for quarter in range(4)]
    # 250 of each are expected with a deviation of 14.
    assert sum(quarters) == 1000 and all(190 < count < 310 for count in quarters)
    # In no order that the corpus had, which a tokenizer that reads the beginning would see.
    assert places != sorted(places)
    assert draw(corpus, 4000, seed=6) != draw(corpus, 4000, seed=5)
