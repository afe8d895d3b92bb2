"""The laptop twin of the whole recipe: `indexlm run tiny`, minutes on two processor cores.

Same code path and same proportions as the full-size recipe; learning rates are scaled up with the
smaller width (the optimum falls with width, so the report's 5e-4 is far left of it here).
"""

from indexlm.config import (
    CharacterConfig,
    DecayConfig,
    DpoConfig,
    OptimiserConfig,
    PretrainConfig,
    Recipe,
    ScheduleConfig,
    SftConfig,
    TextConfig,
    TokenizerConfig,
)
from indexlm.model.config import ModelConfig

DESCRIPTION_ZHUGE = (
    "字孔明，号卧龙，蜀汉丞相。隆中躬耕，受三顾之恩而出山，辅佐刘备父子，"
    "足智多谋，忠贞谨慎，言谈从容，鞠躬尽瘁。"
)

STABLE = {
    "zh_curated": 0.16,
    "zh_ordinary": 0.36,
    "zh_noisy": 0.04,
    "en_curated": 0.08,
    "en_ordinary": 0.27,
    "en_noisy": 0.09,
}
DECAY = {
    "zh_curated": 0.20,
    "zh_ordinary": 0.32,
    "zh_noisy": 0.04,
    "en_curated": 0.12,
    "en_ordinary": 0.24,
    "en_noisy": 0.08,
}
INSTRUCTION_SHARE = 0.07
VOCAB_SIZE = 5120
"""A head of many more rows would take most of a step; of many fewer pieces too few are Chinese
characters, and a model that meets them as bytes writes rare ones at random."""


def recipe() -> Recipe:
    boosted = {name: share * (1 - INSTRUCTION_SHARE) for name, share in DECAY.items()}
    cosine = ScheduleConfig(shape="cosine", warmup=5, final=0.1)
    return Recipe(
        name="tiny",
        text=TextConfig(held_out_share=0.02),
        tokenizer=TokenizerConfig(vocab_size=VOCAB_SIZE, zh_share=0.62),
        model=ModelConfig(
            vocab_size=VOCAB_SIZE,
            hidden=96,
            layers=8,
            heads=3,
            kv_heads=3,
            ffn=272,
            context=256,
            head_scale=3.5,
            init_std=0.04,
        ),
        pretrain=PretrainConfig(
            steps=1000,
            batch=8,
            micro_batch=8,
            mixture=STABLE,
            optimiser=OptimiserConfig(lr=3e-3),
            schedule=ScheduleConfig(shape="wsd", warmup=30, final=0.01),
            save_every=100,
            keep_every=200,
            evaluate_every_tokens=204_800,
        ),
        base=DecayConfig(steps=330, mixture={**boosted, "instruction": INSTRUCTION_SHARE}),
        pure=DecayConfig(steps=330, mixture=DECAY),
        sft=SftConfig(
            steps=60,
            batch=16,
            micro_batch=16,
            optimiser=OptimiserConfig(lr=1.5e-3),
            schedule=cosine,
            save_every=30,
        ),
        dpo=DpoConfig(
            steps=24,
            batch=16,
            micro_batch=16,
            prompts=512,
            optimiser=OptimiserConfig(lr=5e-5, weight_decay=0.0, head_weight_decay=0.0),
            schedule=cosine,
            save_every=12,
        ),
        character=CharacterConfig(
            description=DESCRIPTION_ZHUGE,
            sft=SftConfig(
                steps=50,
                batch=16,
                micro_batch=16,
                optimiser=OptimiserConfig(lr=1.5e-3),
                schedule=cosine,
                save_every=25,
                response_share=0.5,
            ),
            dpo=DpoConfig(
                steps=16,
                batch=16,
                micro_batch=16,
                prompts=320,
                optimiser=OptimiserConfig(lr=5e-5, weight_decay=0.0, head_weight_decay=0.0),
                schedule=cosine,
                save_every=8,
            ),
        ),
    )
