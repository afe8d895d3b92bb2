"""The learned vocabulary: its size, its shares, its longest Chinese piece, and always the same."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from indexlm.config import TokenizerConfig
from indexlm.errors import UserError
from indexlm.text.languages import HAN_CHARACTER
from indexlm.tokens.tokenizer import SPECIAL_PIECES, Tokenizer
from indexlm.tokens.train_bpe import train

Texts = Mapping[str, tuple[str, ...]]

PHRASE = "中华人民共和国"
"""Stands in the Chinese text often enough to become one piece, were it not too long."""

FIXED = len(SPECIAL_PIECES) + 256


def learned(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.piece(index) for index in range(FIXED, tokenizer.vocab_size)]


def chinese(tokenizer: Tokenizer) -> list[str]:
    return [piece for piece in learned(tokenizer) if HAN_CHARACTER.search(piece)]


def trained(texts: Texts, folder: Path, **settings: float) -> Tokenizer:
    config = TokenizerConfig.model_validate({"vocab_size": 640, "zh_share": 0.5, **settings})
    return train(texts, config, folder / "tokenizer.model")


def test_the_vocabulary_is_specials_then_all_bytes_then_distinct_pieces(
    tokenizer: Tokenizer,
) -> None:
    assert tokenizer.vocab_size == 640
    pieces = [tokenizer.piece(index) for index in range(tokenizer.vocab_size)]
    assert tuple(pieces[:5]) == SPECIAL_PIECES
    assert pieces[5:FIXED] == [f"<0x{byte:02X}>" for byte in range(256)]
    assert len(set(pieces)) == len(pieces)
    kinds = [tokenizer.processor.IsByte(index) for index in range(tokenizer.vocab_size)]
    assert kinds == [5 <= index < FIXED for index in range(tokenizer.vocab_size)]


@pytest.mark.parametrize("longest", [1, 2, 3, 5])
def test_chinese_pieces_are_no_longer_than_asked(
    bilingual: Texts, tmp_path: Path, longest: int
) -> None:
    tokenizer = trained(bilingual, tmp_path, zh_max_piece=longest)
    assert max(map(len, chinese(tokenizer))) == longest
    assert max(map(len, learned(tokenizer))) > 5
    # The text itself would give longer ones.
    free = trained(bilingual, tmp_path, zh_max_piece=16)
    assert PHRASE in chinese(free)


def test_the_limit_holds_for_chinese_that_english_text_quotes(
    bilingual: Texts, tmp_path: Path
) -> None:
    quoting = tuple(f"{text} ({PHRASE})" for text in bilingual["en"]) * 4
    texts = {"zh": bilingual["zh"], "en": quoting}
    tokenizer = trained(texts, tmp_path)
    assert max(map(len, chinese(tokenizer))) <= 5
    # Negative control: the quotation is frequent enough to become a piece.
    assert any(len(piece) > 5 for piece in chinese(trained(texts, tmp_path, zh_max_piece=16)))


def test_each_language_gets_its_share(bilingual: Texts, tmp_path: Path) -> None:
    counts = {
        share: len(chinese(trained(bilingual, tmp_path, zh_share=share)))
        for share in (0.2, 0.35, 0.5)
    }
    # Of the 379 learned pieces; the Chinese half holds its punctuation too.
    assert all(abs(count - share * 379) < 15 for share, count in counts.items()), counts


def test_text_of_either_language_is_shorter_in_pieces_than_in_bytes(
    tokenizer: Tokenizer, bilingual: Texts
) -> None:
    for texts in bilingual.values():
        text = "".join(texts)
        assert len(tokenizer.encode(text)) < len(text.encode()) / 2


@pytest.mark.parametrize("language", ["zh", "en"])
def test_one_language_alone_takes_all_pieces(
    bilingual: Texts, tmp_path: Path, language: str
) -> None:
    alone = trained({language: bilingual[language]}, tmp_path, vocab_size=512)
    assert alone.vocab_size == 512
    assert bool(chinese(alone)) == (language == "zh")
    for text in (*bilingual["zh"], *bilingual["en"]):
        assert alone.decode(alone.encode(text)) == text


TRAIN = """
import json, sys
from pathlib import Path
from indexlm.config import TokenizerConfig
from indexlm.tokens.train_bpe import train
config = TokenizerConfig(vocab_size=640, zh_share=0.5)
train(json.loads(sys.stdin.read()), config, Path(sys.argv[1]))
"""


def test_the_same_text_gives_the_same_file_in_any_process(
    bilingual: Texts, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    content = tokenizer.path.read_bytes()
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.model"
        subprocess.run(
            [sys.executable, "-c", TRAIN, str(path)],
            input=json.dumps(bilingual),
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
        assert path.read_bytes() == content


def test_another_text_gives_another_file(
    bilingual: Texts, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    other = trained({**bilingual, "zh": bilingual["zh"][:6]}, tmp_path)
    assert other.fingerprint != tokenizer.fingerprint


def test_text_full_of_markers_makes_no_piece_that_spells_one(
    bilingual: Texts, tmp_path: Path
) -> None:
    spelt = (*SPECIAL_PIECES, "<0x41>")
    hostile = (" ".join(spelt), "".join(spelt)) * 200
    texts = {name: lines + hostile for name, lines in bilingual.items()}
    tokenizer = trained(texts, tmp_path)
    assert not set(spelt) & set(learned(tokenizer))
    for text in (*spelt, *hostile[:2]):
        ids = tokenizer.encode(text)
        assert min(ids) >= 5 and tokenizer.decode(ids) == text


def test_no_more_text_is_read_than_was_asked(bilingual: Texts, tmp_path: Path) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            for text in bilingual["zh"]:
                read += len(text.encode())
                yield text

    texts = {"zh": endless(), "en": bilingual["en"]}
    config = TokenizerConfig(vocab_size=640, zh_share=0.5, sample_bytes=20_000)
    assert train(texts, config, tmp_path / "tokenizer.model").vocab_size == 640
    assert 20_000 <= read < 21_000


def test_long_lines_are_learned_from(bilingual: Texts, tmp_path: Path) -> None:
    """SentencePiece itself would leave such a line out, and with it all of this text."""
    texts = {name: ("".join(lines) * 20,) for name, lines in bilingual.items()}
    assert all(len(lines[0].encode()) > 50_000 for lines in texts.values())
    tokenizer = trained(texts, tmp_path)
    assert "中华" in learned(tokenizer) and tokenizer.vocab_size == 640


@pytest.mark.parametrize("texts", [{}, {"zh": ()}, {"zh": ("",), "en": ("\n\n",)}])
def test_no_text_is_refused_and_nothing_is_written(texts: Texts, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no Chinese or English text"):
        trained(texts, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_larger_than_the_text_is_what_the_text_gives(tmp_path: Path) -> None:
    small = trained({"zh": ("春天来了，春天来了。",)}, tmp_path)
    assert FIXED < small.vocab_size < 640
    assert small.decode(small.encode("春天来了")) == "春天来了"


def test_a_vocabulary_that_leaves_no_room_is_refused(bilingual: Texts, tmp_path: Path) -> None:
    config = TokenizerConfig.model_construct(**{**dict(TokenizerConfig()), "vocab_size": 400})
    with pytest.raises(UserError, match=re.escape("tokenizer.vocab_size=400")):
        train(bilingual, config, tmp_path / "tokenizer.model")
