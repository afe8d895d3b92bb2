"""A tokenizer as the files that transformers, vLLM and SGLang read.

`tokenizer.model` as it is, `tokenizer.json` (BPE with byte fallback), `tokenizer_config.json`.

Texts get the ids that SentencePiece gives them, with one difference that is the published
tokenizer's own: the five special words are cut out of a text before it is tokenised, so a text
that says "reserved_0" holds the marker of a user turn. `split_special_tokens=True` turns that off
and gives the ids of `Tokenizer.encode` for every text. Decoding differs only for byte pieces that
are not whole UTF-8 characters: each byte of such a run shows as U+FFFD; and, where a tokenizer
removes extra spaces, for ids that begin with several spaces, which none of its texts does.

Of the rules by which SentencePiece changes a text before it is cut, the space before it and the
removal of extra spaces are steps of tokenizer.json too. A table of characters (nmt_nfkc and its
like) is not: `Precompiled`, its step for the table, looks up grapheme by grapheme where
SentencePiece takes the longest match, so that e.g. U+FB00 with U+0300 after it gets other ids.

Why one merge per piece is enough. Both programs merge neighbouring pieces, the best first and of
equals the leftmost; SentencePiece ranks a pair by the score of the piece it makes, tokenizer.json
by its place in a list of pairs. While a stretch of text is not merged with what surrounds it, it
goes through the states it would go through alone. So a piece is only ever made from the two parts
that it is made from when it is the whole text: every other split of it never stands side by side.
With scores that differ, the list of these pairs by falling score is the same order.
"""

import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexlm.errors import UserError, shown
from indexlm.records import write_json
from indexlm.tokens.chat_template import CHAT_TEMPLATE
from indexlm.tokens.tokenizer import (
    FILE_NAME,
    SPECIAL_PIECES,
    Tokenizer,
    read_model,
    with_control_pieces,
)

SPACE = "\u2581"
"""SentencePiece's mark of a space."""
BPE, NORMAL, BYTE = 2, 1, 6
"""Numbers of sentencepiece_model.proto: a model type and two kinds of piece."""

Pair = tuple[str, str]


def write(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write the three files; `context` is the longest sequence in tokens.

    Raises UserError where tokenizer.json would give other ids than the SentencePiece model.
    """
    write_json(folder / "tokenizer.json", tokenizer_json(tokenizer))
    write_json(folder / "tokenizer_config.json", tokenizer_config(context))
    shutil.copyfile(tokenizer.path, folder / FILE_NAME)


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of tokenizer.json. Raises UserError where it would give other ids."""
    model = with_control_pieces(read_model(tokenizer.path))
    _refuse_other_rules(model, tokenizer.path)
    learned = model.pieces[len(SPECIAL_PIECES) :]
    scores = {piece.piece: piece.score for piece in learned if piece.type == NORMAL}
    splits = _splits(scores)
    _refuse_unknown_characters(splits, scores, tokenizer.path)
    _refuse_ties(splits, scores, tokenizer.path)
    order = sorted(splits, key=lambda piece: -scores[piece])
    restore = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    decoders = [restore, {"type": "ByteFallback"}, {"type": "Fuse"}]
    rule = model.normalizer_spec
    if rule.add_dummy_prefix or rule.remove_extra_whitespaces:
        # SentencePiece takes the space before a text off again, also one that was not put there.
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i} | entry for i, entry in enumerate(_special_entries())],
        "normalizer": {"type": "Sequence", "normalizers": _rules(rule)},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": SPECIAL_PIECES[0],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece.piece: index for index, piece in enumerate(model.pieces)},
            "merges": [list(splits[piece]) for piece in order],
        },
    }


def tokenizer_config(context: int) -> dict[str, Any]:
    """The content of tokenizer_config.json: nothing put before or after a text."""
    unk, bos, eos, user, assistant = SPECIAL_PIECES
    return {
        # The class that takes tokenizer.json as it is; LlamaTokenizer would add a space.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {str(i): entry for i, entry in enumerate(_special_entries())},
        "bos_token": bos,
        "eos_token": eos,
        "unk_token": unk,
        "pad_token": unk,
        "additional_special_tokens": [user, assistant],
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        # Generation goes on at the right end of a row.
        "padding_side": "left",
        "chat_template": CHAT_TEMPLATE,
    }


def _special_entries() -> list[dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [{"content": piece} | flags | {"special": True} for piece in SPECIAL_PIECES]


def _rules(rule: Any) -> list[dict[str, Any]]:
    """What is done to a text before it is cut, in SentencePiece's order."""
    rules = []
    if rule.remove_extra_whitespaces:
        rules += [_replaced(r"\A +", ""), _replaced(" +", " ")]
    rules.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    if rule.remove_extra_whitespaces:
        # At the end, unlike before it, a mark that the text itself holds goes with the spaces.
        rules.append(_replaced(rf"{SPACE}+\z", ""))
    if rule.add_dummy_prefix:
        rules.append({"type": "Prepend", "prepend": SPACE})
    return rules


def _replaced(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _splits(scores: Mapping[str, float]) -> dict[str, Pair]:
    """Each piece with the two parts it is merged from; pieces that no merge reaches are left
    out."""
    found = {}
    for piece in scores:
        parts = list(piece)
        while len(parts) > 2:
            pairs = [parts[i] + parts[i + 1] for i in range(len(parts) - 1)]
            made = [(scores[pair], -i) for i, pair in enumerate(pairs) if pair in scores]
            if not made:
                break
            at = -max(made)[1]
            parts[at : at + 2] = [pairs[at]]
        if len(parts) == 2:
            found[piece] = (parts[0], parts[1])
    return found


def _refuse_other_rules(model: Any, path: Path) -> None:
    rule = model.normalizer_spec
    if model.trainer_spec.model_type != BPE:
        raise _refusal(path, "is not a BPE model")
    if rule.precompiled_charsmap:
        raise _refusal(path, f"normalises a text before it is cut (rule {shown(rule.name)})")
    if not rule.escape_whitespaces or model.trainer_spec.treat_whitespace_as_suffix:
        raise _refusal(path, "does not mark spaces before words")
    if model.denormalizer_spec.precompiled_charsmap:
        raise _refusal(path, "changes a text after it is decoded")
    learned = model.pieces[len(SPECIAL_PIECES) :]
    if sum(piece.type == BYTE for piece in learned) != 256 or not model.trainer_spec.byte_fallback:
        raise _refusal(path, "does not spell unknown characters by their bytes")
    for piece in learned:
        if piece.type not in (NORMAL, BYTE):
            raise _refusal(path, f"has a piece of another kind, {piece.piece!r}")


def _refuse_unknown_characters(
    splits: Mapping[str, Pair], scores: Mapping[str, float], path: Path
) -> None:
    """SentencePiece merges a character that is no piece itself; tokenizer.json has its bytes."""
    for piece, parts in splits.items():
        for part in parts:
            if part not in scores:
                raise _refusal(path, f"makes {piece!r} from {part!r}, which is no piece")


def _refuse_ties(splits: Mapping[str, Pair], scores: Mapping[str, float], path: Path) -> None:
    """Of two pairs with one score SentencePiece takes the left one, tokenizer.json always the
    same one. That shows where the pairs can overlap, or where what one makes is merged before the
    other's turn."""
    made_from = defaultdict(list)
    for piece, parts in splits.items():
        for part in set(parts):
            made_from[part].append(piece)
    level = defaultdict(list)
    for piece in splits:
        level[scores[piece]].append(piece)
    for score, pieces in level.items():
        if len(pieces) == 1:
            continue
        lefts = defaultdict(set)
        for piece in pieces:
            lefts[splits[piece][0]].add(piece)
        for piece in pieces:
            others = lefts[splits[piece][1]] - {piece}
            others |= {larger for larger in made_from[piece] if scores[larger] >= score}
            if others:
                raise _refusal(path, f"gives {piece!r} and {min(others)!r} scores without an order")


def _refusal(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} {reason}: tokenizer.json would give other ids. Keep to the published layout, "
        "which carries tokenizer.model, or use a tokenizer of `indexlm tokenizer train`"
    )
