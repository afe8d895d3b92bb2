"""The instruction filter: text that shows a task and its answer does not enter pre-training.

Whether a model saw questions with answers late in pre-training changes its benchmark scores a lot
(with 7% of such data in the last phase, five choice benchmarks gained 7 to 17 points). A model
that is to be called pure must not have seen them by accident, so they are taken out here by form;
talk, fiction and dictionary prose that merely contain questions stay.

Rules find what is labelled, marked or set as a test, wherever in a document it stands, and a task
that a document opens with. What has no such form is left to a trained classifier. Strings without
which a rule finds nothing are looked for all at once (Aho and Corasick 1975), so that plain text
meets few regular expressions.
"""

import re
from functools import cache
from itertools import product
from pathlib import Path

import ahocorasick_rs

from indexlm.config import InstructionsConfig
from indexlm.text.block import Block
from indexlm.text.document import Columns, Step
from indexlm.text.filters.linear import Classifier
from indexlm.text.filters.openings import opens_with_task
from indexlm.text.filters.questions import has_options, labelled

REASONS = {"instruction_like": "questions with answers, choices, prompts, or a task and its answer"}
"""Why a document is dropped -> one sentence."""
CLASSIFIER = "classifier"
"""The form of what only a classifier found."""

CODE_HEAD = 400
"""Characters of code in which a question would stand. Further down, `Input:` is a parameter, `(A)`
a call: over all their text, 2% of the files of large Python packages would be dropped."""

# What stands in templates of chats and in the talk of assistants about themselves. Of a sentence
# the first letter is left out where both cases occur.
_TAGS = (
    *("im_start", "im_end", "system", "user", "assistant", "human", "bot", "prompter", "eot_id"),
    *("eom_id", "begin_of_text", "endoftext", "start_header_id", "observation", "endofprompt"),
)
_MARKERS = (
    *(f"<|{tag}|" for tag in _TAGS),
    *(f"<|{tag}>" for tag in ("user", "assistant", "system", "prompter")),
    *("<start_of_turn>", "<end_of_turn>", "<human>", "<bot>", "<assistant>", "<reserved_106>"),
    *("<问>", "<答>", "<用户>", "<助手>", "[INST]", "[/INST]", "[inst]", "<<SYS>>", "<<sys>>"),
    *("[Round 0]", "[Round 1]", "[gMASK]", "<unk>system"),
    *("ou are a helpful assistant", "ou are a helpful, ", "ou are a helpful AI", "ou are an AI "),
    *("ou are a large language model", "ou are a language model", "s a large language model, I"),
    *("As an AI model", "s an AI language model", "As an AI assistant", "m an AI language model"),
    *("elow is an instruction that describes", "以下是一个描述任务的指令", "乐于助人的助手"),
    *("作为一个人工智能", "作为人工智能助手", "作为人工智能语言模型", "作为一个语言模型"),
    *("作为一个大语言模型", "作为一个大型语言模型", "我是人工智能助手", "我是一个人工智能"),
    *("你是一个人工智能", "你是一名人工智能"),
    *(
        f"{said}{name}"
        for said, name in product(
            ("作为一个", "作为一名", "我是一个", "我是一名", "你是一个", "你是一名"), ("AI", "ai")
        )
    ),
    *(f"作为{name}{what}" for name, what in product(("AI", "ai"), ("助手", "语言模型", "模型"))),
)
_ASKING_FIELDS = ("instruction", "prompt", "query", "question", "problem")
_ANSWERING_FIELDS = ("output", "response", "completion", "answer", "answers", "solution", "chosen")
_ROLE_FIELD = re.compile(
    r"[\"'](?:role|from)[\"']\s*:\s*[\"'](?:user|assistant|system|human|gpt)[\"']"
)
_CHOSEN = re.compile(
    r"(?:answer|option|choice) is:? ?\(?[A-E]\)?(?:[.,\n]|$)"
    r"|(?:答案|正确选项|应选|故选|本题选)(?:是|为|选|应为|应选)?[:：]?[ \t]*[（(]?[A-E](?![a-zA-Z])"
)
# A choice that is asked for, whether its options are marked or not.
_EXAM = re.compile(
    r"[Ww]hich (?:one )?of the following[^.?\n]{0,200}[?:_]"
    r"|(?:下列|以下)[^。\n]{0,60}的(?:是|一项|一项是|有)?[^。\n]{0,8}[（(][ \t]*[）)]"
    r"|(?:下列|以下)[^。\n]{0,60}(?:正确|错误|符合|属于|包括|表示|有关)的(?:是|一项|一项是|有)"
    r"[：:。]?[ \t]*\n"
)
_NEEDED = {
    "marker": _MARKERS,
    "asking": [f"{quote}{name}{quote}" for name, quote in product(_ASKING_FIELDS, "\"'")],
    "answering": [f"{quote}{name}{quote}" for name, quote in product(_ANSWERING_FIELDS, "\"'")],
    "role": ['"role"', "'role'", '"from"', "'from'"],
    "chosen": ["answer is", "option is", "choice is", "答案", "正确选项", "应选", "故选", "本题选"],
    "exam": ["hich of the following", "hich one of the following", "下列", "以下"],
}


def instructions(config: InstructionsConfig) -> Step:
    """Columns: `reason` is `instruction_like` where `form`, the form that was found, is not empty.

    Raises UserError for a `model` that is no classifier of instruction data, DamagedError for a
    damaged one.
    """
    classifier = config.model and Classifier.load(Path(config.model), "instructions")

    def step(block: Block) -> Columns:
        forms = [
            instruction_form(document.text, code=document.language == "code")
            for document in block.documents
        ]
        if classifier:
            low_N = classifier.logits(block) < classifier.thresholds(block)
            forms = [form or CLASSIFIER * low for form, low in zip(forms, low_N.tolist())]
        return {"reason": ["instruction_like" if form else "" for form in forms], "form": forms}

    return step


def instruction_form(text: str, *, code: bool = False) -> str:
    """Which form of instruction data the text has; the empty string for none.

    Of code, only the beginning is searched for questions.
    """
    search, meanings = _searched()
    found = {meanings[needle] for needle in search.find_matches_as_strings(text, overlapping=True)}
    if "marker" in found:
        return "marker"
    if found >= {"asking", "answering"} or ("role" in found and _ROLE_FIELD.search(text)):
        return "record"
    if code:
        text = text[:CODE_HEAD]
    if "chosen" in found and _CHOSEN.search(text):
        return "chosen"
    if "exam" in found and _EXAM.search(text):
        return "exam"
    form = labelled(text)
    if form:
        return form
    if has_options(text):
        return "options"
    return "opening" if opens_with_task(text) else ""


@cache
def _searched() -> tuple[ahocorasick_rs.AhoCorasick, dict[str, str]]:
    """The needed strings as one search, and what each is needed for."""
    meanings = {needle: meaning for meaning, needles in _NEEDED.items() for needle in needles}
    return ahocorasick_rs.AhoCorasick(list(meanings)), meanings
