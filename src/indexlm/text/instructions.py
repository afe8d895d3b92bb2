"""The instruction filter: text that shows a task and its answer does not enter pre-training.

Whether a model saw questions with answers late in pre-training changes its benchmark scores a lot
(with 7% of such data in the last phase, five choice benchmarks gained 7 to 17 points). A model
that is to be called pure must not have seen them by accident, so they are taken out here by form;
talk, fiction and dictionary prose that merely contain questions stay.
"""

import re

from indexlm.text.document import Document

# Instruction data wherever they occur; compared in lower case.
_MARKERS = (
    *("<|im_start|", "<|im_end|", "<|system|", "<|user|", "<|assistant|", "<|endoftext|"),
    *("<|eot_id|", "<|start_header_id|", "<start_of_turn>", "[inst]", "[/inst]", "<<sys>>"),
    *("<human>", "<bot>", "<assistant>", "<问>", "<答>", "<用户>", "<助手>"),
    *("you are a helpful", "you are an ai", "you are a large language", "you are a language model"),
    *("as an ai model", "as an ai language model", "below is an instruction that describes"),
    *("作为一个ai", "作为ai", "作为一个人工智能", "作为一个语言模型", "作为一个大语言模型"),
    *(
        "作为一个大型语言模型",
        "以下是一个描述任务的指令",
        "乐于助人的助手",
        "ai助手",
        "人工智能助手",
    ),
)
_ANYWHERE = {
    "record": re.compile(
        r"[\"'](?:instruction|prompt)[\"']\s*:\s*[\"'].*[\"'](?:output|response|completion)[\"']"
        r"|[\"']role[\"']\s*:\s*[\"'](?:user|assistant|system)[\"']",
        re.DOTALL,
    ),
    "chosen": re.compile(
        r"\b(?:answer|option|choice) is:? ?\(?[A-E]\)?(?:[.,\n]|$)"
        r"|(?:答案|正确选项|应选|故选|本题选)(?:是|为|选|应为)?[:：]?[ \t]*[（(]?[A-E](?![a-zA-Z])"
        r"|(?:下列|以下)[^。\n]{0,30}(?:正确|错误|符合|属于)的(?:是|一项)"
        r"[^。\n]{0,8}[（(][ \t]*[）)]"
    ),
}


def _label(names: str) -> re.Pattern[str]:
    """A line that begins with one of the names and a colon, with or without Markdown around it."""
    return re.compile(
        rf"[ \t>*#【\[「-]*(?:{names})[ \t]*\d*[ \t]*[】\]」*]*[ \t]*[:：]", re.IGNORECASE
    )


_INSTRUCTION = _label("Instructions?|任务描述|任务说明")
_ANSWERS = (
    "(?:The |Correct |Final )*(?:Answer|Ans)|Solution|Explanation"
    "|(?:正确|参考|标准)?答案|回答|答|解答|解析|解"
)
# A line of the first kind with a line of the second kind somewhere below it.
_ONE_THEN_OTHER = {
    "question_answer": (
        _label("Question|Q|Problem|Query|问题|问|提问|题目|问答|例题"),
        _label(f"{_ANSWERS}|A"),
    ),
    "roles": (
        _label("User|Human|Prompt|Input|用户|人类|输入|指令"),
        _label(
            "Assistant|AI|Bot|GPT|ChatGPT|Model|Response|Output|Completion"
            "|助手|助理|机器人|回复|输出|模型"
        ),
    ),
    "request": (
        re.compile(
            r"[ \t\d.、]*请(?:你|您)?(?:用[^，。]{1,12})?(?:简要|详细|简单|根据.{0,30}[，,]?)?"
            r"(?:解释|回答|翻译|写一?[篇首段个封]|列出|列举|总结|概括|描述|判断|计算|选出|选择"
            r"|说明|改写|续写|生成|分析|比较|给出|提供|完成|将[下以])"
            r"|[ \t\d.]*(?:Please )?(?:Explain|Describe|Summari[sz]e|Translate|Rewrite"
            r"|Classify|Generate|Write an?|List|Identify|Give (?:me )?(?:an?|\w+)|Compose"
            r"|Calculate|Complete|Answer) .{4}"
        ),
        # Without the bare A, which is also the first speaker of a talk.
        _label(f"{_ANSWERS}|Response|Output|输出|回复|译文|结果"),
    ),
}
_OPTION = re.compile(r"(?<![^\s（(])([（(]?)([A-D])([.．、)）:：])[ \t]*(?=\S)")
# The first option follows a question or begins a line; an initial (J. A. Smith) does neither.
_BEFORE_OPTIONS = re.compile(r"(?:^|[\n?？:：。，)）_…”\"\u4e00-\u9fff]|\w{2}\.)[ \t]*$")


def instruction_like(document: Document) -> str | None:
    """`instruction_like` for questions with answers, choices, prompts and their templates."""
    return "instruction_like" if instruction_form(document.text) else None


def instruction_form(text: str) -> str:
    """Which form of instruction data the text has; the empty string for none."""
    lowered = text.lower()
    if any(marker in lowered for marker in _MARKERS):
        return "marker"
    for form, pattern in _ANYWHERE.items():
        if pattern.search(text):
            return form
    lines = text.split("\n")
    if any(_INSTRUCTION.match(line) for line in lines):
        return "template"
    for form, (first, second) in _ONE_THEN_OTHER.items():
        asked = next((at for at, line in enumerate(lines) if first.match(line)), len(lines))
        if any(second.match(line) for line in lines[asked + 1 :]):
            return form
    return "options" if _has_options(text) else ""


def _has_options(text: str) -> bool:
    """Options A to D, one after the other and marked alike."""
    if not all(letter in text for letter in "ABCD"):
        return False
    letters: dict[str, str] = {}
    for option in _OPTION.finditer(text):
        bracket, letter, mark = option.groups()
        before = text[max(0, option.start() - 8) : option.start()]
        if letter != "A" or bracket or _BEFORE_OPTIONS.search(before):
            letters[mark] = letters.get(mark, "") + letter
    return any(
        "ABCD" in found and (mark not in ":：" or found.count("A") == found.count("D"))
        for mark, found in letters.items()
    )
