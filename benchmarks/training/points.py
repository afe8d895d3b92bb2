"""What is run: the shapes, and the rows that are timed at each of them."""

from collections.abc import Mapping
from dataclasses import dataclass

EAGER = ("hf_bare", "hf_trainer", "litgpt")
COMPILED = tuple(f"{peer}_compiled" for peer in EAGER)
OURS = ("indexlm", "indexlm_compiled")

CONTROLS = ("indexlm_one_lane", "indexlm_whole_rows")
"""What two of our choices are worth: all threads in every operation instead of a lane for each, and
rows that are one document, so that attention does the arithmetic that the peers' does."""

ROWS = (*EAGER, "indexlm", *COMPILED, "indexlm_compiled")
"""hf_bare: transformers' Llama in the plainest loop with fused AdamW. hf_trainer: the same model
in transformers' Trainer. litgpt: its GPT and its loss in its pre-training loop's steps (its own
command always compiles, which is litgpt_compiled)."""


@dataclass(frozen=True)
class Point:
    """A network without tied weights, and what one step of it takes."""

    layers: int
    hidden: int
    heads: int
    ffn: int
    vocab_size: int
    length: int
    """Tokens of a row."""
    batch: int
    """Rows of a step, all at once."""
    rows: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch * self.length


def points() -> Mapping[str, Point]:
    """`recipe` is the shape of the recipe tiny: a run of minutes, where the time to the first step
    counts. A plain head is timed beside the Norm-Head where the head is half of the network, and
    litgpt's chunked head where whole logits are 2.1 GB."""
    from indexlm.recipes import tiny

    recipe = tiny.recipe()
    shape = recipe.model
    return {
        "recipe": Point(
            layers=shape.layers,
            hidden=shape.hidden,
            heads=shape.heads,
            ffn=shape.ffn,
            vocab_size=shape.vocab_size,
            length=shape.context,
            batch=recipe.pretrain.batch,
            rows=ROWS,
        ),
        "tiny": Point(12, 256, 4, 736, 8192, 256, 16, (*ROWS, *CONTROLS, "loader")),
        "small": Point(12, 512, 8, 1472, 32000, 512, 8, (*ROWS, *CONTROLS, "loader")),
        "bigvocab": Point(
            *(6, 512, 8, 1472, 65029, 1024, 8),
            rows=(*ROWS, *CONTROLS, "litgpt_chunked_head", "indexlm_plain_head", "loader"),
        ),
    }
