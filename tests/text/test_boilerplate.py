"""The frame of a web page goes, line by line; what only resembles it stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexlm.text.normalise import normalise
from indexlm.text.reading.boilerplate import strip_boilerplate

ABOVE = "老人支起木桌，热气从桶里一缕一缕地升上去。"
BELOW = "Two men mended a net on the wall and spoke of nothing in particular."

BOILERPLATE = [
    "Home | About | Contact",
    "HOME » PRODUCTS » SHOES",
    "Home > Products > Shoes",
    "首页 > 新闻 > 正文",
    "首页 | 新闻 | 关于我们 | 联系我们",
    "当前位置：首页 - 新闻中心 - 正文",
    "This website uses cookies to improve your experience. Accept",
    "We use cookies to ensure that we give you the best experience on our website.",
    "JavaScript is disabled. For a better experience, please enable JavaScript in your browser.",
    "Share on Facebook Share on Twitter",
    "Share this: Facebook Twitter Email",
    "Like Loading...",
    "Read more",
    "READ MORE »",
    "Skip to content",
    "Skip to Main Content",
    "Copyright (c) 2015 Example Ltd. All rights reserved.",
    "© 2018 Example Publishing Company and its licensors",
    "© 2018 Example. All Rights Reserved.",
    "Privacy Policy | Terms of Use",
    "Subscribe to our newsletter!",
    "Follow us on Twitter",
    "Leave a Reply",
    "Your email address will not be published. Required fields are marked *",
    "Previous Post",
    "Posted by admin on March 3, 2014",
    "Continue reading “The long winter”",
    "版权所有 © 2015 某某网",
    "版权所有：某某市人民政府",
    "京ICP备12345678号-1",
    "责任编辑：张三",
    "（责任编辑：李四）",
    "上一篇：如何选择一台好的笔记本电脑",
    "下一篇: 没有了",
    "点击查看更多",
    "阅读全文",
    "分享到： 微信 微博 QQ空间",
    "扫一扫，关注我们",
    "转载请注明出处",
    "未经授权不得转载",
    "登录 注册",
    "点赞 收藏 分享",
    "发布时间：2015-03-02 10:20",
    "加入收藏 设为首页",
]

TEXT = [
    "收藏：收集保藏。",
    "分享：和别人共同享受。",
    "版权所有者可以授权他人使用。",
    "办理ICP备案需要以下材料。",
    "上一篇文章讲了如何安装。",
    "请点击查看更多的选项，然后选择保存。",
    "他在广告公司上班，写过不少广告语。",
    "该变量默认关闭，登录后才能看到。",
    "# 登录",
    "## 联系我们",
    "- 登录",
    "新闻",
    "He asked her to share this with nobody.",
    "Read more books, and you will find that the world is larger than your street.",
    '"Read more, your worship," said Sancho.',
    '"Help, help!"',
    "Like",
    "do you like it? i do",
    "Instagram and Twitter...",
    "The site map shows where the wells were dug.",
    "We all have a right to the privacy policy that protects us best.",
    "breach of its terms and conditions.",
    "Home is where the heart is.",
    "About a year ago he left.",
    "// Copyright (c) 2015 Example. All rights reserved.",
    "# Copyright (c) 2015 Example. All rights reserved.",
    'print("Read more")',
    "    Skip to content",
    "`Read more`",
    '<a href="/">Home</a> | <a href="/about">About</a>',
]


@pytest.mark.parametrize("line", BOILERPLATE)
def test_boilerplate_goes(line: str) -> None:
    assert strip_boilerplate(f"{ABOVE}\n{line}\n{BELOW}") == (f"{ABOVE}\n{BELOW}", 1)


@pytest.mark.parametrize("line", TEXT)
def test_text_stays(line: str) -> None:
    text = f"{ABOVE}\n{line}\n{BELOW}"
    assert strip_boilerplate(text) == (text, 0)


@pytest.mark.parametrize("line", BOILERPLATE)
def test_a_text_of_one_line_stays(line: str) -> None:
    assert strip_boilerplate(line) == (line, 0)


@pytest.mark.parametrize("line", BOILERPLATE)
def test_a_listing_stays(line: str) -> None:
    text = f"{ABOVE}\n```\n{line}\n```\n{BELOW}"
    assert strip_boilerplate(text) == (text, 0)


def test_a_long_line_is_a_paragraph() -> None:
    text = f"{ABOVE}\nAll rights reserved. {BELOW} {BELOW}\n{BELOW}"
    assert strip_boilerplate(text) == (text, 0)


def test_lines_at_the_borders_and_the_blanks_they_leave() -> None:
    text = f"Home | About\n\n{ABOVE}\n\nRead more\n\n{BELOW}\n\n上一页\n下一页"
    assert strip_boilerplate(text) == (f"{ABOVE}\n\n{BELOW}", 4)


def test_nothing_is_left_of_nothing_else() -> None:
    assert strip_boilerplate("Skip to content\n首页 > 新闻") == ("", 2)


_LINES = st.one_of(st.sampled_from([*BOILERPLATE, *TEXT, "", "```", ABOVE, BELOW]), st.text())


@given(st.lists(_LINES).map("\n".join).map(normalise))
def test_only_whole_lines_go_and_a_second_pass_finds_none(text: str) -> None:
    clean, removed = strip_boilerplate(text)
    before, after = text.split("\n"), clean.split("\n")
    rest = iter(before)
    assert all(any(line == other for other in rest) for line in after if line)
    assert len([line for line in before if line]) - removed == len([line for line in after if line])
    assert "\n" not in clean or strip_boilerplate(clean) == (clean, 0)


def test_a_page_without_line_ends_stays() -> None:
    text = "Share on Facebook " * 100_000 + "\nend"
    assert strip_boilerplate(text) == (text, 0)
