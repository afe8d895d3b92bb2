"""Documents of two kinds that a classifier can tell apart, and classifiers that learned to."""

import random
from functools import cache

from indexlm.text.document import Document
from indexlm.text.filters.classifier import Examples, train
from indexlm.text.filters.linear import Classifier, Task

TALES = {
    "en": "river stone evening garden window letter morning harbour mountain winter bread lantern",
    "zh": "山水 河岸 清晨 花园 窗前 书信 黄昏 港口 远山 冬天 面包 灯火",
}
ADS = {
    "en": "discount voucher shipping checkout deal subscribe coupon sale cheap order bonus promo",
    "zh": "折扣 优惠 包邮 下单 特价 订阅 红包 促销 便宜 付款 赠品 抢购",
}


def documents(
    kind: dict[str, str], count: int, *, language: str = "en", start: int = 0, noise: float = 0.0
) -> list[Document]:
    """Documents of 5 to 60 random words, of which a share of `noise` is of the other kind."""
    made = []
    other = ADS if kind is TALES else TALES
    for number in range(start, start + count):
        draw = random.Random(f"{language} {number} {kind is TALES}")
        words = [
            draw.choice((other if draw.random() < noise else kind)[language].split())
            for _ in range(draw.randint(5, 60))
        ]
        text = (" " if language == "en" else "").join(words)
        made.append(Document(f"t/{number}", text, "t", language, "ordinary"))
    return made


def examples(
    count: int = 150, noise: float = 0.0, languages: tuple[str, ...] = ("en", "zh")
) -> Examples:
    made = Examples()
    for language in languages:
        for gathered, kind in ((made.good, TALES), (made.bad, ADS)):
            for document in documents(kind, count, language=language, noise=noise):
                gathered.add(document)
    return made


@cache
def trained(task: Task) -> Classifier:
    """Of tales as good text and of ads as bad, in both languages."""
    return train(examples(), task=task, max_lost=0.01, seed=1)
