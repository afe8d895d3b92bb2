"""How well a tokenizer compresses, by kind of text: bytes and characters per token."""

from collections.abc import Mapping, Sequence

from indexlm.tokens.tokenizer import Tokenizer


def compression(
    tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Name -> bytes and characters per token, and the share of tokens that are single bytes.

    Bytes are comparable between tokenizers and languages; a byte token is a character that the
    vocabulary does not have.
    """
    is_byte = [tokenizer.piece(i).startswith("<0x") for i in range(tokenizer.vocab_size)]
    rows = {}
    for name, documents in texts.items():
        ids = [index for document in tokenizer.encode_all(documents) for index in document]
        if ids:
            rows[name] = {
                "bytes_per_token": sum(len(text.encode()) for text in documents) / len(ids),
                "characters_per_token": sum(map(len, documents)) / len(ids),
                "byte_share": sum(is_byte[index] for index in ids) / len(ids),
            }
    return rows


def compression_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Aligned text, a line per name."""
    head = f"{'text':<14} {'bytes/token':>12} {'chars/token':>12} {'byte tokens':>12}"
    lines = [
        f"{name:<14} {row['bytes_per_token']:>12.2f} {row['characters_per_token']:>12.2f} "
        f"{row['byte_share']:>12.2%}"
        for name, row in rows.items()
    ]
    return "\n".join([head, *lines])
