"""Who says each quoted line of a Chinese novel in the classical manner (孔明笑曰：“…”).

The text itself teaches most names: what stands before 曰 again and again is a speaker. A bare
given name (瓒曰) is completed by the nearest full name before it (公孙瓒). The rest is grammar of
the words that lead to the quote: the subject of the nearest clause that has one, and not the
person spoken to (谓云长曰). A quote that stays without a speaker keeps the empty name.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from indexlm.roleplay.card import Dialogue, Line
from indexlm.roleplay.names import SURNAMES, THREE_KINGDOMS, TWO_CHARACTER_SURNAMES

MAX_NARRATION = 200
"""Characters of narration between two quotes of one dialogue."""

_QUOTE = re.compile(r"“([^“”]+)”|「([^「」]+)」")
_SENTENCE_END = re.compile(r"[。！？!?”」\n]")
_CLAUSE_END = re.compile(r"[，；：,;:—\s]+")
_SAYING = re.compile(r"曰[：:；;，,]?$|(?:道|言|云|说|问|答|叫|骂|喝|呼|报|叹)[；;，,]$|[：:]$")
# A poem, a letter or a thought stands in quotes too, and nobody hears it.
_UNSPOKEN = re.compile(
    r"(?:诗|词|歌|书|诏|檄|文|赋|谣|论|碑|铭|帖|谚|兵法|[上其奏]表|略)[中内末]?[曰云道][：:；;，,]?$"
    r"|[思想忖][曰道]?[：:；;，,]?$|[书诗]中|正是[：:]$|[写书题][：:]$|有诗|有词|小儿谣|古人|史官"
)
# What may stand between a subject and 曰; taken away from the right, it leaves the subject.
_MANNER = re.compile(
    r"(?:[大冷微]笑|大[怒喜惊骂叫呼哭]|[笑怒喜惊泣哭问答应叹谏奏告骂喝叱叫呼谢拜又再急忙亦乃遂即便皆"
    r"齐徐密私暗长入对言说道请劝止之慌低顾佯出起大责进嘱]|下令|应声|自思|再三|[齐厉高大低失]声|从容|正色|顿首|仰天|抚掌|拍手"
    r"|变色|失色|沉吟|良久|半晌|[默欣愕愀勃奋慨骇]然|挺身|[垂流挥含]泪|[欠起]身|拱手|答礼|回报|献计|附耳|叩首|捶胸|猛然?省)+$"
)
_OPENING = re.compile(
    r"^(?:却说|且说|话说|再说|原来|[只忽]见|忽然?|于是|因此?|[次是当]日|[是当]夜|当[下时]|时|乃|遂|随?即"
    r"|随|又|再|少顷|须臾|先是|正|傍边|帐[下前]|阶下|座上)+"
)
_OBJECT_MARKS = frozenset(
    "谓问对告向与语教令命使请召唤顾视见指骂责劝叱访报引辞说遣执握拜让把闻望扶送救被以斩杀知呼着迎遇聚、和喝"
)
# A name followed by one of these is somebody's, not somebody: 卓婿, 操之弟.
_BELONGING = re.compile(r"之[妻子弟兄母父女侄将]|[妻弟兄母父女婿侄部军兵马寨营]|[帐阶]下")
_SOMEBODY = re.compile(
    r"[众诸][将官人军臣]|左右|[二三四][人将]|文武|[多百]官|[群近]臣|军士|小校|[使来从]使?者|[来从]人"
    r"|一[人将]|[其此那]人|土人|童子|老[人者叟]|门吏|细作|探马|流星马|士卒|百姓|夫人|太后|国太|众(?=[^寡])|或(?=曰)"
    r"|有人|有[^，]{1,2}者|农夫|[哨飞]马(?=[^，]{0,2}报)|[前后]军|舟师|庄主"
)
# After a quote, a sentence that begins so has the subject of the one before.
_SAME_SUBJECT = re.compile(r"又|复|乃|因|即|遂|便|随|急|忙|仍|再|令|唤|召|命")
_SURNAME = f"(?:{'|'.join(TWO_CHARACTER_SURNAMES)}|[{''.join(sorted(SURNAMES))}])"
# Somebody named once, perhaps after an office: 主簿左咸曰.
_STRANGER = re.compile(rf"{_SURNAME}[\u4e00-\u9fff]{{1,2}}$")
_COURTESY = re.compile(
    rf"({_SURNAME})(?:，名)?([\u4e00-\u9fff]{{1,2}})，字([\u4e00-\u9fff]{{2}})[，；：。]"
)


@dataclass(frozen=True)
class Names:
    """Speakers of one text (`known`), and the one way to write a person who has several names."""

    known: frozenset[str]
    canonical: Mapping[str, str]


@dataclass(frozen=True)
class _Quote:
    text: str
    start: int
    end: int
    lead: str  # the words of the quote's own sentence before it


def dialogues_of_novel(
    chapters: Iterable[tuple[str, str]],
    people: Mapping[str, tuple[str, ...]] = THREE_KINGDOMS,
) -> list[Dialogue]:
    """The spoken lines of a novel, given as (title, text) chapters, as dialogues.

    `people` maps a name to its aliases; every speaker is written by the first. Quotes with at
    most 200 characters of narration between them are one dialogue; the narration is left out,
    because a chat has none and a small window no room for it.
    """
    texts = list(chapters)
    names = learn_names((text for _, text in texts), people)
    dialogues: list[Dialogue] = []
    for title, text in texts:
        for number, lines in enumerate(_scenes(text, names), start=1):
            scene = f"{title.strip()} ({number})"
            dialogues.append(Dialogue(f"{len(dialogues) + 1:05}", scene, tuple(lines)))
    return dialogues


def learn_names(texts: Iterable[str], people: Mapping[str, tuple[str, ...]]) -> Names:
    """Speakers that stand alone before 曰 at least twice, courtesy names, and the given people."""
    counts: Counter[str] = Counter()
    canonical: dict[str, str] = {}
    for text in texts:
        for surname, given, courtesy in _COURTESY.findall(text):
            canonical.setdefault(courtesy, surname + given)
            canonical.setdefault(surname + courtesy, surname + given)
        counts.update(_plain_subject(quote.lead) for quote in _quotes(text))
    for name, aliases in people.items():
        canonical |= dict.fromkeys((name, *aliases), name)
    given = canonical.keys() | set(canonical.values())
    learned = {name for name, count in counts.items() if count >= 2 and _is_name(name, counts)}
    return Names(frozenset(learned | given), canonical)


def _is_name(name: str, counts: Counter[str]) -> bool:
    """False where a shorter, more frequent speaker begins it: 玄德闻 is 玄德 and a verb."""
    shorter = (name[:length] for length in range(2, len(name)))
    return 1 <= len(name) <= 4 and all(counts[start] <= counts[name] for start in shorter)


def _quotes(text: str) -> Iterator[_Quote]:
    for match in _QUOTE.finditer(text):
        before = text[max(0, match.start() - 120) : match.start()]
        lead = _SENTENCE_END.split(before)[-1].strip()
        yield _Quote(match[1] or match[2], match.start(), match.end(), lead)


def _plain_subject(lead: str) -> str:
    """X of a lead that is no more than `X (in some manner) 曰：`, else the empty string."""
    clauses = [clause for clause in _CLAUSE_END.split(lead) if clause]
    if len(clauses) != 1 or not clauses[0].endswith("曰") or _UNSPOKEN.search(lead):
        return ""
    subject = _MANNER.sub("", _OPENING.sub("", clauses[0][:-1]))
    return "" if any(mark in subject for mark in _OBJECT_MARKS) else subject


def _scenes(text: str, names: Names) -> Iterator[list[Line]]:
    """Groups of spoken lines with little narration between them."""
    scene: list[Line] = []
    end = 0
    for quote in _quotes(text):
        if not _SAYING.search(quote.lead) or _UNSPOKEN.search(quote.lead):
            continue
        if scene and quote.start - end > MAX_NARRATION:
            yield scene
            scene = []
        previous = scene[-1].speaker if scene else ""
        gap = text[end : quote.start] if scene else ""
        speaker = _speaker(quote, text[: quote.start], gap, previous, names)
        scene.append(Line(speaker, quote.text.strip()))
        end = quote.end
    if scene:
        yield scene


def _speaker(quote: _Quote, before: str, gap: str, previous: str, names: Names) -> str:
    """The speaker of one quote. `gap` is the narration since the previous quote of the scene."""
    subject = _subject(quote.lead, names)
    if subject:
        return _full_name(subject, before, names)
    at_once = gap.strip() == quote.lead and not re.search(r"[答应]曰", quote.lead)
    if at_once and _SAME_SUBJECT.match(quote.lead):
        return previous
    sentences = [part for part in _SENTENCE_END.split(gap)[:-1] if part.strip()]
    goes_on = _SAME_SUBJECT.match(quote.lead) or not _MANNER.sub("", quote.lead.rstrip("曰：；"))
    subject = _subject(sentences[-1], names) if sentences and goes_on else ""
    return _full_name(subject, before, names) if subject else ""


def _subject(sentence: str, names: Names) -> str:
    """The subject of the last clause that has one: a known name, or somebody (众将, 一人)."""
    clauses = [clause for clause in _CLAUSE_END.split(sentence) if clause]
    for clause in reversed(clauses):
        subject = _clause_subject(clause, names)
        if subject:
            return subject
    alone = _plain_subject(clauses[-1]) if clauses else ""
    stranger = _STRANGER.search(alone)
    if stranger and len(alone) <= 8:
        return stranger[0]
    return alone if len(alone) <= (3 if len(clauses) == 1 else 2) else ""


def _clause_subject(clause: str, names: Names) -> str:
    clause = _OPENING.sub("", clause)
    for start in range(len(clause)):
        if start and (clause[start - 1] in _OBJECT_MARKS or clause[:start] in ("将", "与")):
            continue
        # A single character is a name only where a sentence may begin with it: 操曰, not 曹操.
        for length in range(4, 1 if start else 0, -1):
            name = clause[start : start + length]
            if (
                len(name) == length
                and name in names.known
                and not _BELONGING.match(clause, start + length)
            ):
                return name
        somebody = _SOMEBODY.match(clause, start)
        if somebody:
            return somebody[0]
    return ""


def _full_name(subject: str, before: str, names: Names) -> str:
    """A given name completed by the nearest full name before it; an alias by its owner."""
    whole = len(subject) > 2 or subject[0] in SURNAMES or _SOMEBODY.fullmatch(subject)
    if len(subject) > 1 and (whole or subject in names.canonical):
        return names.canonical.get(subject, subject)
    at = before.rfind(subject)
    while at > 0:
        for surname in (before[max(0, at - 2) : at], before[at - 1]):
            full = surname + subject
            if full in names.known or surname in TWO_CHARACTER_SURNAMES or surname in SURNAMES:
                return names.canonical.get(full, full)
        at = before.rfind(subject, 0, at)
    return names.canonical.get(subject, subject)
