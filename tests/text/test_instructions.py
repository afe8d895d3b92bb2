"""Instruction data of many forms is caught; what only looks a little like it is not."""

import pytest

from indexlm.text.document import Document
from indexlm.text.instructions import instruction_form, instruction_like

PLANTED = [
    "Question: What is the capital of France?\nAnswer: Paris.",
    "Q: How many legs has a spider?\nA: Eight.",
    "**Question 3:** Which gas do plants take in?\n**Answer:** Carbon dioxide.",
    "Problem: A train covers 60 km in an hour.\nSolution: It covers 1 km in a minute.",
    "问：水的沸点是多少？\n答：一百摄氏度。",
    "问题：谁写了《红楼梦》？\n答案：曹雪芹",
    "题目：计算三加五。\n解析：三加五等于八。",
    "【问题】：什么是光合作用？\n【答案】：植物制造养分的过程。",
    "### Instruction:\nWrite a poem about rain.\n\n### Response:\nRain falls on the roof.",
    "Below is an instruction that describes a task. Write a response.",
    "指令：把下面的句子译成英文。\n输入：你好。\n输出：Hello.",
    "User: tell me a joke\nAssistant: Why did the chicken cross the road?",
    "Human: hi there\n\nAssistant: Hello! How can I help?",
    "用户：今天天气怎么样？\n助手：今天晴。",
    "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nhi<|im_end|>",
    "[INST] Say something nice [/INST] You look well today.",
    '{"instruction": "Name a colour", "input": "", "output": "Blue"}',
    '{"messages": [{"role": "user", "content": "hi"}]}',
    "Which planet is largest?\nA. Mars\nB. Venus\nC. Jupiter\nD. Mercury",
    "What is 2 + 2? (A) 3 (B) 4 (C) 5 (D) 6",
    "下列哪一个是哺乳动物？\nA、青蛙\nB、鲸鱼\nC、麻雀\nD、鲤鱼",
    "中国的首都是哪里？ A．上海 B．北京 C．广州 D．天津",
    "下列说法正确的是（ ）地球是方的，月亮会发光。",
    "太阳从哪边升起？应选B。",
    "It was the second one, so the answer is B.",
    "请解释“画蛇添足”的意思。\n回答：比喻做多余的事。",
    "请用一句话总结下面的文章：春天来了，花开了。\n输出：春暖花开。",
    "Translate the sentence into French: I am cold.\nOutput: J'ai froid.",
    "Explain why the sky is blue.\n\nAnswer: Because air scatters blue light more.",
    "You are a helpful assistant. Be brief.",
    "作为一个人工智能语言模型，我没有感情。",
]

PLAIN = [
    # A novel's talk in both languages.
    "玄德问曰：“此处离城多远？”农夫答曰：“不过十里。”玄德称谢，上马便行。",
    "“你为什么不回答？”她问。\n他没有说话，只把信放在桌上。\n“请你回答我。”\n窗外下着雨。",
    "“What is the matter?” asked Tom. “Nothing,” she answered. “I have a question, and I am afraid "
    "of the answer.” He waited. The answer is always the same, he thought.",
    "And he said unto them, Is it lawful to do good? And they answered nothing. And he asked them "
    "again, saying, Whose image is this? They say unto him, The king's.",
    # Dictionary prose.
    "问题：1.要求回答或解释的题目。2.需要研究讨论并加以解决的矛盾。3.事故或意外。",
    "回答：对问题给予解释；对要求表示意见。亦作“答复”。",
    "答案：对问题所作的解答。",
    "解：1.剖开。2.把束缚着的东西打开。\n解（jiè）：押送财物或犯人。",
    "指令：指定计算机操作的一组代码。由操作码和地址码组成。",
    "请教：请求指教。",
    "用户：使用某种设备或者消费某种商品的人。",
    "Instruction is a noun: teaching, or an order to be carried out.",
    # Plain conversation, with faces that look like options.
    "Mozart or Beethoven?\nA: hello\nB: hi! Beethoven I guess\nA: why?\nB: no idea D: sorry",
    "List your favourite smells\nA: rain\nB: coffee, what else?\nA: true",
    "A: What do you study?\nB: Maths. And you?\nA: Art. It is hard.\nB: C: poor you\nA: D: yes",
    "甲：你吃了吗？\n乙：吃了，你呢？\n甲：还没有，正要去。",
    # Initials and vitamins.
    "J. A. Smith met B. Jones and C. Brown at noon. D. H. Lawrence was not there.",
    "维生素A、B、C都溶于不同的东西，人体每天都需要它们。",
    "Please write to me soon, and describe the garden; I miss it so.\nYours, Anna",
    "请大家注意安全，列车马上进站。请您站在黄线以内。",
]


@pytest.mark.parametrize("text", PLANTED)
def test_planted_instruction_data_is_caught(text: str) -> None:
    document = Document("t/1", text, "t", "en", "ordinary")
    assert instruction_like(document) == "instruction_like"


@pytest.mark.parametrize("text", PLANTED)
def test_it_is_caught_in_the_middle_of_other_text(text: str) -> None:
    around = "这是一段普通的文字。\n\n{}\n\nThe day went on as before.\n"
    assert instruction_form(around.format(text))


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_is_not(text: str) -> None:
    assert instruction_form(text) == ""
