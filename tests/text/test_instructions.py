"""Instruction data of many forms is caught; what only looks a little like it is not."""

import itertools
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from classified_text import ADS, TALES, documents, trained
from indexlm.config import InstructionsConfig
from indexlm.errors import DamagedError, UserError
from indexlm.text.block import Block
from indexlm.text.document import Document
from indexlm.text.filters.instructions import CLASSIFIER, instruction_form, instructions

PLANTED = [
    "Question: What is the capital of France?\nAnswer: Paris.",
    "Q: How many legs has a spider?\nA: Eight.",
    "Q1. How many legs has a spider?\nA1. Eight.",
    "**Question 3:** Which gas do plants take in?\n**Answer:** Carbon dioxide.",
    "Problem: A train covers 60 km in an hour.\nSolution: It covers 1 km in a minute.",
    "Question: What is the capital of France? Answer: Paris.",
    "Question: Sort these.\nplum, apple Answer: apple, plum",
    "What is the capital of France?\nCorrect answer: Paris.",
    "The capital of France is ____.\nAnswer: Paris.",
    "问：水的沸点是多少？\n答：一百摄氏度。",
    "问题：谁写了《红楼梦》？\n答案：曹雪芹",
    "1. 水的沸点是多少？\n参考答案：一百摄氏度。",
    "题目：计算三加五。\n解析：三加五等于八。",
    "【问题】：什么是光合作用？\n【答案】：植物制造养分的过程。",
    "【题目】什么是光合作用？\n【解析】植物制造养分的过程。",
    "问：水的沸点是多少？ 答：一百摄氏度。",
    "Q：谁写的？\n没有人知道。\nQ：何时写的？\n去年。\nQ：在哪里？\n在家里。",
    "### Instruction:\nWrite a poem about rain.\n\n### Response:\nRain falls on the roof.",
    "### Instruction\nWrite a poem about rain.\n### Response\nRain falls on the roof.",
    "Below is an instruction that describes a task. Write a response.",
    "指令：把下面的句子译成英文。\n输入：你好。\n输出：Hello.",
    "User: tell me a joke\nAssistant: Why did the chicken cross the road?",
    "**User**\ntell me a joke\n\n**Assistant**\nWhy did the chicken cross the road?",
    "USER: tell me a joke ASSISTANT: Why did the chicken cross the road?",
    "Human: hi there\n\nAssistant: Hello! How can I help?",
    "You: hi there\nChatGPT: Hello! How can I help?",
    "用户：今天天气怎么样？\n助手：今天晴。",
    "我：今天天气怎么样？\nAI：今天晴。",
    "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nhi<|im_end|>",
    "[INST] Say something nice [/INST] You look well today.",
    '{"instruction": "Name a colour", "input": "", "output": "Blue"}',
    "{'question': 'Name a colour', 'answer': 'Blue'}",
    '{"messages": [{"role": "user", "content": "hi"}]}',
    '{"conversations": [{"from": "human", "value": "hi"}]}',
    "Which planet is largest?\nA. Mars\nB. Venus\nC. Jupiter\nD. Mercury",
    "Which planet is largest?\n- **A.** Mars\n- **B.** Venus\n- **C.** Jupiter",
    "What is 2 + 2? (A) 3 (B) 4 (C) 5 (D) 6",
    "The largest planet is A. Mars B. Venus C. Jupiter D. Mercury",
    "Which planet is largest?\na) Mars\nb) Venus\nc) Jupiter\nd) Mercury",
    "下列哪一个是哺乳动物？\nA、青蛙\nB、鲸鱼\nC、麻雀\nD、鲤鱼",
    "中国的首都是哪里？ A．上海 B．北京 C．广州 D．天津",
    "中国的首都是A、上海 B、北京 C、广州 D、天津",
    "下列说法正确的是（ ）地球是方的，月亮会发光。",
    "以下关于月亮的说法错误的是：\n月亮会发光\n月亮绕着地球转",
    "Which of the following gives light?\n\nthe sun\n\nthe moon\n\nthe earth",
    "太阳从哪边升起？应选B。",
    "It was the second one, so the answer is B.",
    "请解释“画蛇添足”的意思。\n回答：比喻做多余的事。",
    "请用一句话总结下面的文章：春天来了，花开了。\n输出：春暖花开。",
    "Translate the sentence into French: I am cold.\nOutput: J'ai froid.",
    "Explain why the sky is blue.\n\nAnswer: Because air scatters blue light more.",
    "You are a helpful assistant. Be brief.",
    "作为一个人工智能语言模型，我没有感情。",
]

OPENED = [
    "Write a short poem about the rain.\nRain falls on the roof.",
    "Name three colours. Red, green and blue.",
    "Given the words apple, plum and fig, sort them.\napple, fig, plum",
    "What causes the tides?\nThe moon pulls at the water of the seas.",
    "列出三种颜色。\n红、绿、蓝。",
    "请将下面的句子翻译成英文：你好。\nHello.",
    "根据以下信息写一封信。\n收信人：小王\n小王，你好！",
    "把“天气很好”改写成疑问句。\n天气好吗？",
    "为什么海水有涨有落？\n因为月亮吸引海水。",
    "什么是潮汐？潮汐是海水的涨落。",
    "3 + 5 =\n8",
]
"""Tasks without a mark, which are told only where a document begins with them."""

PLAIN = [
    # A novel's talk in both languages.
    "玄德问曰：“此处离城多远？”农夫答曰：“不过十里。”玄德称谢，上马便行。",
    "“你为什么不回答？”她问。\n他没有说话，只把信放在桌上。\n“请你回答我。”\n窗外下着雨。",
    "“What is the matter?” asked Tom. “Nothing,” she answered. “I have a question, and I am afraid "
    "of the answer.” He waited. The answer is always the same, he thought.",
    "And he said unto them, Is it lawful to do good? And they answered nothing. And he asked them "
    "again, saying, Whose image is this? They say unto him, The king's.",
    "What was he to do? He walked to the river and back.\nThe house was dark.",
    # Dictionary prose.
    "问题：1.要求回答或解释的题目。2.需要研究讨论并加以解决的矛盾。3.事故或意外。",
    "回答：对问题给予解释；对要求表示意见。亦作“答复”。",
    "答案：对问题所作的解答。",
    "解：1.剖开。2.把束缚着的东西打开。\n解（jiè）：押送财物或犯人。",
    "指令：指定计算机操作的一组代码。由操作码和地址码组成。",
    "请教：请求指教。",
    "翻译：把一种语言文字的意义用另一种语言文字表达出来。",
    "用户：使用某种设备或者消费某种商品的人。",
    "Instruction is a noun: teaching, or an order to be carried out.",
    # Plain conversation, with faces that look like options.
    "Mozart or Beethoven?\nA: hello\nB: hi! Beethoven I guess\nA: why?\nB: no idea D: sorry",
    "What if the moon were made of cheese?\nA: hello\nB: I would eat it",
    "List your favourite smells\nA: rain\nB: coffee, what else?\nA: true",
    "A: What do you study?\nB: Maths. And you?\nA: Art. It is hard.\nB: C: poor you\nA: D: yes",
    "甲：你吃了吗？\n乙：吃了，你呢？\n甲：还没有，正要去。",
    # Reviews and advice.
    "描述不符，实物比照片差很多，退货也不方便。",
    "请大家不要来这家店，服务太差。\n下次换一家。",
    "对这次购物很满意，下次还来。",
    "建议不要买，质量不好。",
    # Initials, vitamins, exits, functions, enumerations of a law.
    "J. A. Smith met B. Jones and C. Brown at noon. D. H. Lawrence was not there.",
    "The paper of A. Smith, B. Jones, C. Brown and D. White was read aloud.",
    "维生素A、B、C都溶于不同的东西，人体每天都需要它们。",
    "The sum f(A) + f(B) + f(C) + f(D) is positive.",
    "Whoever applies must provide:\na) a form;\nb) a picture;\nc) a fee;\nd) a name.",
    "Input: 100-240 V, 50 Hz\nOutput: 12 V, 2 A",
    "## 输入\n\n从文件读入数据。\n\n## 输出\n\n把结果写到文件。",
    "Please write to me soon, and describe the garden; I miss it so.\nYours, Anna",
    "请大家注意安全，列车马上进站。请您站在黄线以内。",
]

CODE = """import json

def f(input, output):
    \"\"\"Args:
        Input: the text that is read
        Output: where it is written
    \"\"\"
    return g(A) + g(B) + g(C) + g(D)  # Question: is it right?  Answer: it is
"""

words = st.text(
    st.sampled_from("晨风吹过山谷河水很慢abcdefg hijk lmnop. ,。，\n"), min_size=1, max_size=60
).filter(str.strip)
LABELS = [
    *itertools.product(
        ("Question: ", "Q: ", "**Q:** ", "### Question\n"), ("Answer: ", "A: ", "**A**: ")
    ),
    *itertools.product(("User: ", "Human: ", "USER: "), ("Assistant: ", "AI: ", "Response: ")),
    *itertools.product(
        ("问：", "问题：", "提问: ", "【问题】"), ("答：", "答案：", "回答：", "【答案】")
    ),
    *itertools.product(("用户：", "指令：", "### 指令：\n"), ("助手：", "回复：", "### 回复\n")),
]


def form_of(text: str) -> str:
    """By the step, with other documents before and behind."""
    texts = ("起风了，\n问：", text, "：答\nA. one B. two")
    block = Block([Document(f"t/{n}", each, "t", "en", "ordinary") for n, each in enumerate(texts)])
    columns = instructions(InstructionsConfig())(block)
    assert [bool(form) for form in columns["form"]] == [bool(r) for r in columns["reason"]]
    assert columns["reason"][1] in ("", "instruction_like")
    return columns["form"][1]


@pytest.mark.parametrize("text", PLANTED)
def test_planted_instruction_data_is_caught(text: str) -> None:
    assert form_of(text) == instruction_form(text) != ""


@pytest.mark.parametrize("text", PLANTED)
def test_it_is_caught_in_the_middle_of_other_text(text: str) -> None:
    around = "这是一段普通的文字。\n\n{}\n\nThe day went on as before.\n"
    assert instruction_form(around.format(text))


@given(st.sampled_from(LABELS), words, words)
def test_a_labelled_pair_is_caught_whatever_is_asked(
    labels: tuple[str, str], question: str, answer: str
) -> None:
    first, second = labels
    assert instruction_form(f"{first}{question}\n{second}{answer}")


@given(words, words)
def test_the_same_words_without_labels_are_not(question: str, answer: str) -> None:
    assert instruction_form(f"{question}\n{answer}") == ""


@pytest.mark.parametrize("text", OPENED)
def test_a_task_that_a_document_opens_with_is_caught(text: str) -> None:
    assert instruction_form(text) == "opening"


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_is_not(text: str) -> None:
    assert form_of(text) == instruction_form(text) == ""


def test_code_is_searched_for_questions_only_where_it_begins() -> None:
    far = "x = 1\n" * 100 + CODE
    assert instruction_form(far) == "roles"
    assert instruction_form(far, code=True) == ""
    asked = "Question: write a loop\nAnswer: for i in range(9): print(i)\n"
    assert instruction_form(asked + far, code=True) == "question_answer"
    assert instruction_form(far + "<|im_start|>user", code=True) == "marker"
    block = Block([Document(f"t/{n}", far, "t", ("code", "en")[n], "noisy") for n in range(2)])
    assert instructions(InstructionsConfig())(block)["form"] == ["", "roles"]


@given(st.text(max_size=200))
@example("A.\nB.\nC.\nD.")
@example("答：")
@example("\n" * 50)
def test_any_text_has_a_form_or_none(text: str) -> None:
    assert isinstance(instruction_form(text), str)


@pytest.mark.parametrize(
    "part", ["A:", "C:", "Answer:", "a ", "\nb) ", "下列", "（", "Given the ", "_"]
)
def test_long_text_of_one_mark_does_not_take_the_square_of_its_length(part: str) -> None:
    """A million characters, for which a quadratic rule would take hours."""
    instruction_form(f"{part}x " * (1_000_000 // (len(part) + 2)))


def test_a_classifier_adds_what_the_rules_do_not_find(tmp_path: Path) -> None:
    path = tmp_path / "instructions.safetensors"
    trained("instructions").save(path)
    texts = [documents(ADS, 1, start=9000)[0].text, documents(TALES, 1, start=9000)[0].text]
    block = Block(
        [
            Document(f"t/{n}", text, "t", "en", "noisy")
            for n, text in enumerate([*texts, "Q: a\nA: b"])
        ]
    )
    ruled = instructions(InstructionsConfig())(block)
    assert ruled["form"] == ["", "", "question_answer"]
    both = instructions(InstructionsConfig(model=str(path)))(block)
    assert both["form"] == [CLASSIFIER, "", "question_answer"]
    assert both["reason"] == ["instruction_like", "", "instruction_like"]


def test_a_classifier_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "quality.safetensors"
    trained("quality").save(path)
    with pytest.raises(UserError, match="--task instructions"):
        instructions(InstructionsConfig(model=str(path)))
    path.write_bytes(path.read_bytes()[:-2] + b"\0\7")
    with pytest.raises(DamagedError, match="changed"):
        instructions(InstructionsConfig(model=str(path)))
