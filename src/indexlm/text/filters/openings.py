"""Tasks that a text opens with: `Write a ...`, `列出……`, or a question that the next line answers.

Without any label, a task is told by its first words, which running text hardly ever begins with.
"""

import re

_SOME = (
    r"(?:an?|the|this|that|these|those|each|some|any|all|one|two|three|four|five|six|seven|eight"
    r"|nine|ten|\d+|me|us|at least|several|how|why|what|which|who|when|where|whether|if|in|it"
    r"|following|given)\b"
)
# Verbs that open tasks and little else; such that also open advice and advertisements.
_TASKS = (
    "Generate|Describe|Explain|Re-?write|Classify|Summari[sz]e|Categori[sz]e|Paraphrase|Re-?word"
    "|Re-?phrase|Brainstorm|Calculate|Compute|Translate|Compose|Formulate|Re-?arrange|Re-?order"
    "|Identify|Suggest|Analy[sz]e|Convert|Name|Construct|Predict|Evaluate|Compare and contrast"
    "|Reconstruct|Refactor|Speculate|Hypothesi[sz]e|Come up with|Pick out|Sum up|Make up an?"
)
_ALSO_TASKS = (
    "List|Give|Provide|Create|Write|Find|Design|Edit|Compare|Determine|Tell|Add|Develop|Change|Choose"
    "|Select|Outline|Arrange|Sort|Output|Complete|Insert|Pick|Transform|Propose|Rank|Replace"
    "|Assign|Discuss|Answer|Define|Detect|Build|Reverse|Estimate|Produce|Draft|Recommend|Organi[sz]e"
    "|State|Remove|Divide|Compile|Combine|Delete|Match|Group|Rate|Modify|Update|Fix|Solve|Devise"
    "|Retrieve|Cite|Extract|Correct|Invent|Format|Interpret|Spell|Simplify|Think of|Fill in|Infer"
    "|Reformulate|Report|Simulate|Indicate|Connect|Expand|Plan|Decide|Find out|Use|Show|Count"
)
_GIVEN = (
    "following|given|provided|below|above|input|sentences?|paragraph|passage|text|article|story"
    "|words?|phrases?|list|numbers|code|data|information|poem|quote"
)
_ENGLISH = re.compile(
    rf"(?:(?:Please|Kindly|Can you|Could you|I want you to|I need you to)[ ,]+)?"
    rf"(?:(?:{_TASKS})\b(?! of\b|,)|(?:{_ALSO_TASKS}) {_SOME}(?!,)|Make an? "
    rf"|(?:Based on|Using|Read|Take|Put|Turn) (?:the|this|these) (?:{_GIVEN})\b"
    r"|(?:For|From|In) the (?:following|given|provided|input) (?!we\b|example|\W)"
    r"|Given (?:an?|the|these|this|two|three|four|some|\d+) [^\n.]{3,150}?(?:[.:]?\n|[,.:;] (?:"
    rf"{_TASKS}|{_ALSO_TASKS}|what|which|how|who|is)\b)"
    r"|\d[\d. ]*[+\-*/×÷][\d+\-*/×÷(). ]{1,30}[=＝]"
    r"|You (?:are|will be) (?:given|provided|presented)\b|In this task\b)",
)
# In a title, the word behind the first has a capital; in talk, people are addressed.
_QUESTION = re.compile(
    r"(?:(?:What|Which|Who|Whose|When|Where|Why|How) (?=[a-z])|In (?:what|which) )"
    r"(?![^?\n]*\b(?:you|your|I|my|me|we|our|us|he|she|him|her|his)\b)[^?\n]{8,200}\?\s*\n"
    r"(?![^\n]*\?|\w{1,12}:)"
)

_MANY = r"[一两二三四五六七八九十几\d]"
_THIS = "(?:这|该)[个段篇句首组些]?(?:句|段|文|词|短语|数|列表|代码|故事|诗|信息|问题|语)"
_THESE = f"(?:以下|下列|下面|给定|所给|上述|{_THIS})"
_MADE = (
    "(?:翻译|转换|转化|改写|改为|改成|分类|分为|归类|排序|排列|写|生成|创建|设计|编|造句|描述|解释|表达"
    "|总结|概括|列出|提供|制定|命名|提出|推荐|想|回答|选择|判断|计算|构建|填|完成)"
)
_CHINESE_TASKS = (
    # Asked for.
    r"请(?:你|您)?(?:帮|用|写|列|给出|给我|提供|解|描述|说明|简|分析|比较|总结|概括|翻译|回答|判断|选|计算"
    r"|设计|编|生成|创|续|改|推荐|介绍|谈|举|找|指|完成|填|构|制定|想|将|把|对以|对下|根据|从以|从下|为|按"
    r"|基于|撰|摘|归|识别|提取|评|预测|证明|求|阐|论|定义|模拟|扮演|告诉|问[^\n]{4,60}[?？]\n)",
    r"帮我(?:写|想|把|将|找|列|做|生成|翻|推荐|起|查|算|改|润|画|解|总|分|设|制|编|给|用|规划|拟)",
    r"(?:告诉|教)我(?!们|的)|给我(?:[一讲写推列举提]|\d)",
    # Verbs that open tasks and little else; such that need to say of what, or of how many.
    r"(?:描述|解释|列出|列举|说出|写出|写下|举出|想出|找出|给出|重写|改写|续写|创作|编写|翻译|识别|概述"
    r"|简述|阐述|论述|构造|撰写|生成|提取|查找|求)"
    r"(?!的|得|了|很|器|方|权|后|时|率|之|者|在|不|相|与|一致|婚|职|助|推)",
    r"(?:写|创建|设计|提供|提出|建议|推荐|举|想|制定|制作|构建|开发|建立|组织|画|讲|列|选择|定义|命名|讨论"
    rf"|评价|评估|预测|估计|输出|创造|编造|想象)(?:{_MANY}|{_THESE}|个(?!例子)|关于|有关|至少)",
    r"(?:将|把|对|从|为|给|根据|使用|用|在|按照?|利用|基于|针对|总结|概括|分析|比较|计算|判断|确定|分类|编辑"
    rf"|检查|回答|重新排列|排列|修改|完成|阅读)(?:于|一下)?(?:{_THESE}|文本|句子|段落)",
    r"(?:计算|比较|分析|总结|概括|确定|判断|讨论|评估)[^\n。！，]{2,40}(?:的|是否|和|与)[^\n。！，]{1,30}"
    r"[。？?：:]?\n",
    # Something to be made of something.
    r"(?:将|把|为(?!了)|用|根据|使用|给|以(?!为)|从)(?![^\n]{0,60}(?:我|您|咱|大家))[^\n。！]{1,40}?"
    rf"{_MADE}(?:{_MANY}|出|成|为|到|[^\n。！]{{0,30}}[。：:？?]?\n)",
    rf"给定(?:{_MANY}|[^\n]{{2,60}}[，,。：:])",
)
# A word and a colon begin an entry of a dictionary.
_CHINESE = re.compile(
    rf"(?![^\n，。：:以下面这句文请]{{1,8}}[：:][^\n])(?:{'|'.join(_CHINESE_TASKS)})"
)
# With its answer in the same line.
_CHINESE_DEFINITION = re.compile(
    r"(?:什么是|何为|何谓|如何|怎样|[^\n。！？?，：]{1,25}(?:是什么|是谁|有哪些|指的是什么|是多少))"
    r"(?![^\n？?]{0,60}(?:你|我|他|她|大家|吧|呢|啊|嘛))[^\n。！!？?，]{0,40}[？?](?=[^？?])"
)
_CHINESE_QUESTION = re.compile(
    r"(?=[^\n。！!#][^\n。！!]{2,100}[？?]\s*\n)"
    r"(?![^\n]*(?:你|您|我|咱|他|她|大家|吧|呢|啊|呀|嘛|么么|\?\?|？？))"
    r"[^\n]*(?:什么|如何|怎样|怎么|为什么|为何|哪|谁|多少|几|是否|何时|有何|吗)[^\n]*\s*\n(?![^\n]*[？?]\n)"
)


def opens_with_task(text: str) -> bool:
    """Whether the first words ask for something, or the first line is a question that is no talk
    and has an answer below it."""
    if _ENGLISH.match(text) or _QUESTION.match(text):
        return True
    # A text of ASCII, which Python knows without a look at it, has no Chinese.
    return not text.isascii() and bool(
        _CHINESE.match(text) or _CHINESE_QUESTION.match(text) or _CHINESE_DEFINITION.match(text)
    )
