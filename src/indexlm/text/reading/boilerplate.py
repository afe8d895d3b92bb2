"""Lines of a web page that are no part of its text: menus, share buttons, notes on cookies.

A filter drops a document; here a good document loses its frame. What goes is decided line by line
and leaves doubtful lines alone: a line is short, and phrases of such frames make up most of its
letters, or it begins like one of them. Lines of code, headings and texts of a single line stay, so
that a dictionary entry on 收藏 and a comment with a licence are safe.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import groupby

import ahocorasick_rs

MAX_CHARS = 120
"""A longer line is a paragraph."""
MAX_OPENED_CHARS = 80
"""The same of a line that only begins like boilerplate."""
MIN_COVERED_SHARE = 0.7
"""Share of a line's letters that stand in phrases of boilerplate."""
MIN_WEAK = 2
"""Phrases that occur in text too (登录, Search) count where so many stand in one line."""

COVERS, WEAK, OPENS, DECIDES, HARMLESS = range(5)

# Alone in a line they are boilerplate.
_COVERS = """
skip to content;skip to main content;skip to navigation;jump to navigation;jump to content
read more;continue reading;read full article;read the full story;click to share;click to tweet
share this;share this post;share this article;share this page;share this with your friends
share on facebook;share on twitter;share on linkedin;share on whatsapp;share on pinterest
share via email;tweet this;pin it;like us on facebook;follow us on facebook;follow us on twitter
follow us on instagram;follow us;like loading;subscribe to our newsletter;subscribe now
sign up for our newsletter;sign up for our free newsletter;join our mailing list
subscribe to our channel;subscribe to our youtube channel;like and subscribe;subscribe via email
leave a comment;leave a reply;post a comment;add a comment;cancel reply;be the first to comment
comments are closed;no comments yet;required fields are marked;log in to reply;login to reply
privacy policy;cookie policy;terms of use;terms of service;terms and conditions;terms & conditions
accept all cookies;accept cookies;cookie settings;manage cookies;back to top;return to top
scroll to top;print this page;email this page;email to a friend;previous post;next post
previous article;next article;older posts;newer posts;related posts;related articles
you may also like;you might also like;recommended for you;sponsored content;advertisement
add to cart;add to wishlist;view cart;load more;load more comments;show more;view all comments
forgot your password;lost your password;forgot password;create an account
report abuse;do not sell my personal information;click here to subscribe;toggle navigation
main menu;site map;sitemap;google+;facebook twitter;rss feed;all rights reserved
点击查看;点击查看更多;查看更多;查看全部;查看详情;点击查看详情;阅读全文;点击阅读全文;展开全文;阅读原文
加载更多;上一篇;下一篇;上一页;下一页;返回顶部;回到顶部;返回首页;返回列表;返回上一页;设为首页;加入收藏;收藏本站
网站地图;友情链接;分享到;分享至;分享到微信;分享到微博;分享到朋友圈;分享到QQ空间;扫一扫;微信扫一扫;扫码关注
扫描二维码;扫一扫关注;关注公众号;关注微信公众号;扫码下载;一键三连;点赞关注;点击关注;关注我们;打赏作者;打开APP
下载APP;立即下载;客户端下载;请先登录;登录后发表评论;发表评论;我要评论;条评论;忘记密码;相关阅读;相关推荐;相关文章
相关新闻;推荐阅读;延伸阅读;热门推荐;热门文章;猜你喜欢;为您推荐;大家都在看;未经授权不得转载;未经许可不得转载
未经允许不得转载;转载请注明出处;转载请注明;如有侵权请联系删除;侵权请联系删除;侵删;版权归原作者所有;打印本页
关闭窗口;字号大中小;保留所有权利;广告
"""
_WEAK = """
Home;About;About Us;Contact;Contact Us;Help;FAQ;Search;Menu;Blog;News;Login;Log In;Log Out;Sign In
Sign Up;Register;Subscribe;Share;Tweet;Like;Reply;Comments;Print;Email;Facebook;Twitter;Pinterest
Instagram;YouTube;LinkedIn;WhatsApp;Reddit;Tumblr;RSS;Cart;Checkout;My Account;Careers;Advertise
首页;新闻;登录;注册;评论;收藏;点赞;转发;分享;举报;打赏;微信;微博;QQ空间;联系我们;关于我们;免责声明;隐私政策;用户协议
服务条款;帮助中心;意见反馈;广告服务;人才招聘;打印;字号;订阅;客服热线;技术支持
"""
# A line that begins so is boilerplate to its end.
_OPENS = """
You are here:;Home >;Home »;Home ›;Home /;Home |
Filed under;Filed Under;Posted in;Posted In;Posted by
Tagged with;Tagged With;Copyright ©;Copyright (c);Copyright (C);© 19;© 20;©19;©20;(c) 20;(C) 20
Continue reading “;Continue reading ";Continue Reading;Read more »;Read more about this
首页 >;首页>;首页 »;首页»;首页 ›;首页 ->;首页 ＞;首页＞;当前位置：;当前位置:;您的位置：;您的位置:
您现在的位置;您当前的位置;你的位置：;上一篇：;上一篇:;下一篇：;下一篇:;责任编辑：;责任编辑:;（责任编辑;(责任编辑;[责任编辑;【责任编辑;责编：;责编:
文章来源：;文章来源:;发布时间：;发布时间:;发布日期：;发布日期:;浏览次数：;浏览次数:;阅读次数：;阅读次数:;点击次数：;点击次数:
分享到：;分享到:;版权所有
"""
# A short line that holds one is boilerplate, whatever else it says.
_DECIDES = """
this website uses cookies;this site uses cookies;our website uses cookies;we use cookies to
by continuing to use this site;by continuing to browse;javascript is disabled;JavaScript is disabled
please enable javascript;please enable JavaScript;JavaScript must be enabled
your email address will not be published;notify me of follow-up comments;notify me of new posts
proudly powered by wordpress;powered by wordpress;powered by discuz;powered by phpwind
this entry was posted in;both comments and trackbacks are currently closed
ICP备;ICP证;公网安备;增值电信业务经营许可证;信息网络传播视听节目许可证
"""
_HARMLESS = "ICP备案;版权所有者;版权所有人;版权所有权;广告语;广告牌;广告公司;广告商;新闻学;注册表"
_CAPITALS = {WEAK, OPENS, HARMLESS}
_SMALL_WORDS = {"a", "an", "and", "by", "for", "in", "of", "on", "or", "our", "the", "to", "with"}

_CODE = re.compile(r"""\s*(?://|/\*|\*|#|--|;|<|>|\|)|(?: {4}|\t)|.*(?:[{}=`]|\(["']|["']\)|\);)""")
_LETTER = re.compile(r"[^\W\d_]")
_SENTENCE_END = "。！？!?"


def strip_boilerplate(text: str) -> tuple[str, int]:
    """The text without its boilerplate lines, and how many they were.

    Text that nothing is found in is returned as it is. The result is empty where nothing else
    stood in the text.
    """
    if "\n" not in text:
        return text, 0
    finder, classes = _finder()
    found = finder.find_matches_as_indexes(text)
    if not found:
        return text, 0
    cuts = list(_boilerplate_lines(text, found, classes))
    if not cuts:
        return text, 0
    kept, done = [], 0
    for start, end in cuts:
        kept.append(text[done:start])
        done = end + 1
    kept.append(text[done:])
    return re.sub(r"\n{3,}", "\n\n", "".join(kept)).strip("\n"), len(cuts)


def _boilerplate_lines(
    text: str, found: list[tuple[int, int, int]], classes: list[int]
) -> Iterator[tuple[int, int]]:
    """Where the lines begin and end that go."""
    fences, seen = 0, 0
    for start, hits in groupby(found, key=lambda hit: _line_start(text, hit[1])):
        end = text.find("\n", start, start + MAX_CHARS + 1)
        end = len(text) if end < 0 else end
        if start < 0 or end - start > MAX_CHARS:
            continue
        spans = [
            (pattern, first - start, last - start)
            for pattern, first, last in hits
            if _stands_alone(text, first, last)
        ]
        fences, seen = fences + text.count("```", seen, start), start
        # Behind an odd number of fences stands a listing.
        if fences % 2 == 0 and _is_boilerplate(text[start:end], spans, classes):
            yield start, end


def _line_start(text: str, place: int) -> int:
    """-1 where it lies too far ahead, so that a page without line ends is not read again and
    again."""
    start = text.rfind("\n", max(0, place - MAX_CHARS), place) + 1
    return start if start or place < MAX_CHARS else -1


def _is_boilerplate(line: str, spans: list[tuple[int, int, int]], classes: list[int]) -> bool:
    if not spans or _CODE.match(line):
        return False
    kinds = [classes[phrase] for phrase, _, _ in spans]
    if DECIDES in kinds:
        return True
    short = len(line) <= MAX_OPENED_CHARS and not line.endswith(tuple(_SENTENCE_END))
    if kinds[0] == OPENS and short and not _LETTER.search(line, 0, spans[0][1]):
        return True
    weak = {phrase for phrase, _, _ in spans if classes[phrase] == WEAK}
    row = len(weak) >= MIN_WEAK and not line.endswith((*_SENTENCE_END, ".", "…"))
    if COVERS not in kinds and not row:
        return False
    covered = sum(
        len(_LETTER.findall(line, first, last))
        for kind, (_, first, last) in zip(kinds, spans)
        if kind != HARMLESS
    )
    return covered >= MIN_COVERED_SHARE * len(_LETTER.findall(line))


def _stands_alone(text: str, first: int, last: int) -> bool:
    """Whether a phrase of Latin letters is not the middle of a longer word."""
    pairs = (text[max(0, first - 1) : first + 1], text[last - 1 : last + 1])
    return not any(len(pair) == 2 and pair.isascii() and pair.isalpha() for pair in pairs)


@cache
def _finder() -> tuple[ahocorasick_rs.AhoCorasick, list[int]]:
    """Finds all phrases in one pass, and the class of each."""
    classes: dict[str, int] = {}
    for kind, listed in (
        (COVERS, _COVERS),
        (WEAK, _WEAK),
        (OPENS, _OPENS),
        (DECIDES, _DECIDES),
        (HARMLESS, _HARMLESS),
    ):
        for phrase in re.split("[;\n]", listed.strip("\n")):
            spellings = {phrase, phrase.upper()} if kind in _CAPITALS else _spellings(phrase)
            classes |= dict.fromkeys(spellings, kind)
    # The default automaton is smaller and takes twice as long.
    finder = ahocorasick_rs.AhoCorasick(
        list(classes),
        matchkind=ahocorasick_rs.MatchKind.LeftmostLongest,
        implementation=ahocorasick_rs.Implementation.DFA,
    )
    return finder, list(classes.values())


def _spellings(phrase: str) -> set[str]:
    """As in a sentence, at its start, in a heading of two styles, and in capitals."""
    heading = " ".join(
        word if word in _SMALL_WORDS else word[0].upper() + word[1:] for word in phrase.split(" ")
    )
    sentence = phrase[0].upper() + phrase[1:]
    return {phrase, sentence, heading[0].upper() + heading[1:], phrase.title(), phrase.upper()}
