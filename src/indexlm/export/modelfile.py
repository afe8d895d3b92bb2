"""The Modelfile with which Ollama serves a GGUF file.

Ollama does not read the chat template of the file; this one, in Go's template language, has the
meaning of chat_template.py. As there, marker words typed by a user are read as markers.
"""

from indexlm.errors import UserError
from indexlm.tokens.tokenizer import ASSISTANT, EOS, SPECIAL_PIECES, SYSTEM, USER

TEMPLATE = (
    "{{ range .Messages }}"
    # As in chat_format.py, an empty system text is no system turn.
    f'{{{{ if and (eq .Role "system") .Content }}}}{SPECIAL_PIECES[SYSTEM]}{{{{ .Content }}}}'
    f'{{{{ else if eq .Role "user" }}}}{SPECIAL_PIECES[USER]}{{{{ .Content }}}}'
    f"{SPECIAL_PIECES[ASSISTANT]}"
    '{{ else if eq .Role "assistant" }}{{ .Content }}'
    "{{ end }}{{ end }}"
)
"""No spaces, no line ends, and nothing after the last answer."""

STOPS = tuple(SPECIAL_PIECES[i] for i in (USER, ASSISTANT, EOS, SYSTEM))

# The sampling of the published chat models.
SAMPLING = {"temperature": 0.3, "top_k": 5, "top_p": 0.8, "repeat_penalty": 1.1}


def modelfile(gguf_name: str, context: int, system: str | None = None) -> str:
    """Text of a Modelfile that stands beside the file `gguf_name`; `context` in tokens.

    `system` is the system message of a conversation that brings none. `ollama create NAME -f
    Modelfile` takes it from there. Raises UserError for a text that the format cannot quote.
    """
    if system is not None and '"""' in system:
        raise UserError(f'the system text {system!r} holds """, which ends a text in a Modelfile')
    lines = [f"FROM ./{gguf_name}", f'TEMPLATE """{TEMPLATE}"""']
    if system:
        lines.append(f'SYSTEM """{system}"""')
    lines += [f'PARAMETER stop "{word}"' for word in STOPS]
    lines += [f"PARAMETER {name} {value}" for name, value in SAMPLING.items()]
    return "\n".join([*lines, f"PARAMETER num_ctx {context}"]) + "\n"
