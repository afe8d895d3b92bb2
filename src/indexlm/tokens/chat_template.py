"""The chat format as Jinja text, for programs that render a conversation to a string.

The same form as chat_format.py, for texts without marker words. A rendered string cannot tell the
marker `reserved_0` from a user who typed it, so a program that reads this template lets a text
forge a turn; `chat_format.prompt_ids` does not. A user turn ends with the assistant's marker, so
`add_generation_prompt` changes nothing, and no end-of-sequence token stands between past turns.
"""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{% if not loop.first %}{{ raise_exception('a system message must be the first') }}{% endif %}"
    # As in chat_format: an empty system text is no system turn.
    "{% if message['content'] %}{{ '<unk>' + message['content'] }}{% endif %}"
    "{% elif message['role'] == 'user' %}"
    "{{ 'reserved_0' + message['content'] + 'reserved_1' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] }}"
    "{% else %}"
    "{{ raise_exception('role ' + message['role'] + ' is not system, user or assistant') }}"
    "{% endif %}"
    "{% endfor %}"
)
