"""The split: by name, whatever the documents are cut into, and no language goes without."""

from hypothesis import given
from hypothesis import strategies as st

from indexlm.text.document import Document
from indexlm.text.writing.held_out import firsts, forced, merged, place, split_key

IDS = st.lists(
    st.tuples(st.sampled_from(["zh", "en", "code"]), st.integers(0, 30).map("s/{}".format))
)


def documents(ids: list[tuple[str, str]]) -> list[Document]:
    return [Document(name, "text", "s", language, "ordinary") for language, name in ids]


def test_one_name_has_one_key_whoever_explains_it() -> None:
    assert split_key("word/晨风") == split_key("idiom/晨风#2") == "晨风"
    assert split_key("alone") == "alone"


@given(IDS, st.integers(1, 7))
def test_parts_know_together_what_the_whole_knows(ids: list[tuple[str, str]], size: int) -> None:
    parts = [ids[start : start + size] for start in range(0, len(ids), size)]
    assert merged(firsts(documents(part)) for part in parts) == firsts(documents(ids))


@given(IDS, st.sampled_from([1e-9, 0.03, 0.4]))
def test_a_language_with_two_names_has_one_held_out(
    ids: list[tuple[str, str]], share: float
) -> None:
    chosen = forced(firsts(documents(ids)), share)
    for language in ("zh", "en"):
        keys = {split_key(name) for spoken, name in ids if spoken == language}
        unseen = {key for key in keys if place(key) < share or key in chosen}
        assert unseen or len(keys) < 2
