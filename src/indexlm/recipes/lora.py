"""Fine-tune a model folder on your conversations: the published LoRA script's settings.

    indexlm run lora parent=MODEL sft.files='["mine.jsonl"]' --out DIR

Rank 32, alpha 64, dropout 0.1 on all seven projections; learning rate 1e-4 with a cosine, warm-up
2% of the steps, weight decay 0.01, clip 0.3, 6 epochs, 4 rows x 4 accumulated, 384 tokens a row.
One thing differs: answers end with `</s>`, where that script ends them with the padding id.
"""

from indexlm.config import Continuation, ConversationConfig, OptimiserConfig
from indexlm.model.config import LoraConfig

ROW = 384


def recipe(
    parent: str = "Index-1.9B-Chat", files: tuple[str, ...] = ("mine.jsonl",), length: int = ROW
) -> Continuation:
    return Continuation(
        name="lora",
        parent=parent,
        sft=ConversationConfig(
            files=files,
            length=length,
            epochs=6,
            batch=16,
            micro_batch=4,
            optimiser=OptimiserConfig(lr=1e-4, weight_decay=0.01, head_weight_decay=0.01, clip=0.3),
            warmup_share=0.02,
        ),
        lora=LoraConfig(rank=32, alpha=64, dropout=0.1),
    )
