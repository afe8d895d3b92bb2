"""What Ollama is told: the same ids as a prompt built here, and the published sampling."""

import re

import jinja2
import pytest

from indexlm.errors import UserError
from indexlm.export.modelfile import TEMPLATE, modelfile
from indexlm.tokens.chat_template import CHAT_TEMPLATE

TALK = [
    {"role": "system", "content": "你是一个助手。"},
    {"role": "user", "content": "Hello there!\n"},
    {"role": "assistant", "content": " 你好 "},
    {"role": "user", "content": "How are you?"},
]


def render_go(template: str, messages: list[dict[str, str]]) -> str:
    """The few actions that the template uses, as Jinja's."""
    jinja = template
    for go, own in (
        (r"\{\{ range \.Messages \}\}(.*)\{\{ end \}\}$", r"{% for m in messages %}\1{% endfor %}"),
        (r"\{\{ (else )?if (.*?) \}\}", lambda f: f"{{% {'el' if f[1] else ''}if {f[2]} %}}"),
        (r"and \(eq \.Role (\S+)\) \.Content", r"m['role'] == \1 and m['content']"),
        (r"eq \.Role (\S+)", r"m['role'] == \1"),
        (r"\{\{ \.Content \}\}", "{{ m['content'] }}"),
        (r"\{\{ end \}\}", "{% endif %}"),
    ):
        jinja = re.sub(go, own, jinja)
    assert ".Role" not in jinja and ".Content" not in jinja and "eq " not in jinja
    return (
        jinja2.Environment(keep_trailing_newline=True).from_string(jinja).render(messages=messages)
    )


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("last", [2, 3, 4])
def test_the_template_means_what_the_chat_template_means(first: int, last: int) -> None:
    messages = TALK[first:last]
    ours = jinja2.Environment().from_string(CHAT_TEMPLATE).render(messages=messages)
    assert render_go(TEMPLATE, messages) == ours
    assert render_go(TEMPLATE, [{"role": "system", "content": ""}, *TALK[1:]]) == render_go(
        TEMPLATE, TALK[1:]
    )


def test_the_whole_file() -> None:
    text = modelfile("chat-q8_0.gguf", 4096, "你是\n一个助手。")
    assert text == (
        "FROM ./chat-q8_0.gguf\n"
        'TEMPLATE """{{ range .Messages }}{{ if and (eq .Role "system") .Content }}'
        '<unk>{{ .Content }}{{ else if eq .Role "user" }}reserved_0{{ .Content }}reserved_1'
        '{{ else if eq .Role "assistant" }}{{ .Content }}{{ end }}{{ end }}"""\n'
        'SYSTEM """你是\n一个助手。"""\n'
        'PARAMETER stop "reserved_0"\n'
        'PARAMETER stop "reserved_1"\n'
        'PARAMETER stop "</s>"\n'
        'PARAMETER stop "<unk>"\n'
        "PARAMETER temperature 0.3\n"
        "PARAMETER top_k 5\n"
        "PARAMETER top_p 0.8\n"
        "PARAMETER repeat_penalty 1.1\n"
        "PARAMETER num_ctx 4096\n"
    )


def test_without_a_system_text_there_is_none() -> None:
    assert "SYSTEM" not in modelfile("m.gguf", 256)
    assert "num_ctx 256" in modelfile("m.gguf", 256)


def test_a_system_text_that_would_end_its_quotes_is_refused() -> None:
    with pytest.raises(UserError, match="ends a text in a Modelfile"):
        modelfile("m.gguf", 256, 'say """hi"""')
