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
    TokenizerConfig,
)
from indexlm.model.config import ModelConfig

DESCRIPTION_ZHUGE = (
    "字孔明，号卧龙，蜀汉丞相。隆中躬耕，受三顾之恩而出山，辅佐刘备父子，"
    "足智多谋，忠贞谨慎，言谈从容，鞠躬尽瘁。"
)

STABLE = {
    "zh_curated": 0.17,
    "zh_ordinary": 0.27,
    "zh_noisy": 0.06,
    "en_curated": 0.12,
    "en_ordinary": 0.28,
    "en_noisy": 0.10,
}
DECAY = {
    "zh_curated": 0.22,
    "zh_ordinary": 0.22,
    "zh_noisy": 0.06,
    "en_curated": 0.16,
    "en_ordinary": 0.24,
    "en_noisy": 0.10,
}
INSTRUCTION_SHARE = 0.07
VOCAB_SIZE = 4096
"""Half the time of a step went into a head of 8192 rows; the smaller one sees more text instead."""


def recipe() -> Recipe:
    boosted = {name: share * (1 - INSTRUCTION_SHARE) for name, share in DECAY.items()}
    cosine = ScheduleConfig(shape="cosine", warmup=5, final=0.1)
    return Recipe(
        name="tiny",
        tokenizer=TokenizerConfig(vocab_size=VOCAB_SIZE),
        model=ModelConfig(
            vocab_size=VOCAB_SIZE,
            hidden=128,
            layers=8,
            heads=4,
            kv_heads=4,
            ffn=368,
            context=256,
            head_scale=3.0,
            init_std=0.04,
        ),
        pretrain=PretrainConfig(
            steps=900,
            batch=8,
            micro_batch=8,
            mixture=STABLE,
            optimiser=OptimiserConfig(lr=4e-3),
            schedule=ScheduleConfig(shape="wsd", warmup=30, final=0.01),
            save_every=100,
            evaluate_every=100,
        ),
        base=DecayConfig(steps=300, mixture={**boosted, "instruction": INSTRUCTION_SHARE}),
        pure=DecayConfig(steps=300, mixture=DECAY),
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
