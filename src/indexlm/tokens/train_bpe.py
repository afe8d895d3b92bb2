"""Learn the bilingual vocabulary: a Chinese half with short pieces, an English half, one model.

Chinese pieces are learned on Chinese text alone, at most 5 characters long (the report lowered
the limit from 16 to 5: long pieces memorise boilerplate), English pieces on English text. The two
merge orders are then interleaved by rank into one BPE model, which works because the scripts
share almost no merge. Byte fallback covers every other character.
"""

import io
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from indexlm.config import TokenizerConfig
from indexlm.errors import UserError
from indexlm.text.languages import HAN_CHARACTER
from indexlm.tokens.tokenizer import SPECIAL_PIECES, Tokenizer

log = logging.getLogger("indexlm")

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
CHARACTER_SHARE = 0.9
"""Most of the pieces that may be single characters; rarer ones fall back to bytes, since a row
of the head that is seen a few times is not learned."""
SPACE = "\u2581"
"""SentencePiece's mark of a space."""
LONGEST_LINE = 4096
"""SentencePiece leaves longer sentences out, in bytes."""


def train(texts: Mapping[str, Iterable[str]], config: TokenizerConfig, path: Path) -> Tokenizer:
    """Learn a tokenizer from running text by language (`zh`, `en`) and write it to `path`.

    A language without text leaves its share to the other, and too little text gives fewer pieces
    than were asked. Raises UserError where there is nothing to learn from.
    """
    learned = config.vocab_size - len(SPECIAL_PIECES) - 256
    if learned < 200:
        raise UserError(f"tokenizer.vocab_size={config.vocab_size} leaves {learned} learned pieces")
    samples = {name: _sample(texts.get(name, ()), config.sample_bytes) for name in ("zh", "en")}
    present = [name for name, lines in samples.items() if lines]
    if not present:
        raise UserError("no Chinese or English text to learn a tokenizer from")
    share = config.zh_share if len(present) == 2 else float(present[0] == "zh")
    sizes = {"zh": round(learned * share), "en": learned - round(learned * share)}
    limits = {"zh": config.zh_max_piece, "en": config.en_max_piece}
    # Each half is learned with its full budget of pieces plus what the two will turn out to share.
    halves = {
        name: _learn(name, samples[name], sizes[name], limits[name], learned) for name in present
    }
    learned_pieces = {
        name: [p.piece for p in half.pieces if p.type == NORMAL] for name, half in halves.items()
    }
    if "en" in learned_pieces:
        # English text quotes Chinese; the limit holds for a Chinese piece wherever it was learned.
        learned_pieces["en"] = [
            piece
            for piece in learned_pieces["en"]
            if len(piece) <= config.zh_max_piece or not HAN_CHARACTER.search(piece)
        ]
    model = _merge(next(iter(halves.values())), learned_pieces, sizes, config.vocab_size)
    path.write_bytes(model.SerializeToString())
    return Tokenizer(path)


def _sample(texts: Iterable[str], limit: int) -> list[str]:
    """Lines of the first `limit` bytes; longer lines are cut, as SentencePiece would skip them."""
    lines: list[str] = []
    size = 0
    for text in texts:
        for line in _short_lines(text):
            lines.append(line)
            size += len(line.encode())
        if size >= limit:
            break
    return lines


def _short_lines(text: str) -> Iterator[str]:
    step = LONGEST_LINE // 4
    for line in text.splitlines():
        yield from (line[start : start + step] for start in range(0, len(line), step))


def _learn(language: str, lines: list[str], size: int, longest: int, most: int) -> Any:
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as proto

    out = io.BytesIO()
    # Room for pieces that the other half also has (digits, punctuation, Latin letters).
    asked = min(size + max(400, size // 11), most) + len(SPECIAL_PIECES) + 256
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=_common(lines, round(size * CHARACTER_SHARE)),
            model_writer=out,
            model_type="bpe",
            vocab_size=asked,
            hard_vocab_limit=False,
            character_coverage=1.0,
            max_sentencepiece_length=longest,
            max_sentence_length=LONGEST_LINE,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_digits=True,
            control_symbols=list(SPECIAL_PIECES[3:]),
            num_threads=2,
            minloglevel=2,
        )
    except RuntimeError as error:
        size_mb = sum(len(line.encode()) for line in lines) / 1e6
        raise UserError(
            f"{size_mb:.2f} MB of {language} text cannot give {asked} pieces; "
            f"lower tokenizer.vocab_size or add text ({error})"
        ) from error
    model = proto.ModelProto()
    model.ParseFromString(out.getvalue())
    return model


def _common(lines: list[str], most: int) -> Iterator[str]:
    """The lines cut at every character that is not among the `most` commonest.

    The trainer's own coverage setting cannot go below 0.98, which in a dictionary of rare
    characters is still most of the vocabulary.
    """
    counts = Counter(character for line in lines for character in line)
    common = {character for character, _ in counts.most_common(most)}
    for line in lines:
        yield from "".join(c if c in common else "\n" for c in line).split("\n")


def _merge(
    half: Any, learned: Mapping[str, list[str]], sizes: Mapping[str, int], vocab_size: int
) -> Any:
    """One model: specials and bytes of `half`, then all pieces in the order they were learned."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = proto.ModelProto()
    model.CopyFrom(half)
    fixed = len(SPECIAL_PIECES) + 256
    specials = list(model.pieces)[:fixed]
    # Characters come last in a learned list but everything is built from them: first claim.
    chosen: dict[str, None] = {}
    for name, pieces in learned.items():
        mine = dict.fromkeys(p for p in pieces if len(p) == 1)
        mine.update(dict.fromkeys(p for p in pieces if len(p) > 1))
        room = sizes[name]
        for piece in mine:
            if room == 0:
                break
            if piece not in chosen:
                chosen[piece] = None
                room -= 1
    ranks = {
        piece: (rank / max(len(pieces), 1), name)
        for name, pieces in reversed(list(learned.items()))
        for rank, piece in enumerate(pieces)
    }
    ordered = sorted(chosen, key=lambda piece: (len(piece) == 1, *ranks[piece]))
    most = vocab_size - fixed
    if SPACE not in ordered[:most]:
        # Text without spaces. They must still be a piece: by its bytes the mark of a space would
        # come back as the mark.
        ordered[most - 1 :] = [SPACE]
    del model.pieces[:]
    for piece in specials:
        model.pieces.add().CopyFrom(piece)
    for rank, piece in enumerate(ordered[:most]):
        model.pieces.add(piece=piece, score=float(-rank), type=NORMAL)
    model.trainer_spec.vocab_size = len(model.pieces)
    return model
