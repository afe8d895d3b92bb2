"""The door to llama.cpp: the ids it cuts, the text it generates, the blocks it packs, and that it
is heard by nobody else.

Shape suffixes: O rows, I columns of a matrix.
"""

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import gguf as reference
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import SHAPE, make_model

from indexlm.errors import DamagedError, UserError
from indexlm.export import gguf
from indexlm.export.gguf_keys import metadata
from indexlm.export.llama_cpp import LlamaCpp, opened, pack
from indexlm.model.transformer import Transformer
from indexlm.tokens.chat_format import Conversation, prompt_ids
from indexlm.tokens.tokenizer import ASSISTANT, SYSTEM, USER, Tokenizer

GROUPED = SHAPE.model_copy(update={"kv_heads": 2, "vocab_size": 640})


@pytest.fixture(scope="module")
def model() -> Transformer:
    return make_model(GROUPED)


@pytest.fixture(scope="module")
def path(
    model: Transformer, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    gguf.write(model, path, "f32", metadata(GROUPED, tokenizer, "f32", "test"))
    return path


@pytest.fixture(scope="module")
def llama(path: Path) -> Iterator[LlamaCpp]:
    with opened(path, 256, fast_attention=False, float32_cache=True) as llama:
        yield llama


def mixed_lines(bilingual: dict[str, tuple[str, ...]]) -> list[str]:
    """Pieces of both languages with rare characters, emoji, spaces and marker words between."""
    draw = random.Random(5)
    others = [
        "  ",
        "\t",
        "\n\n",
        "😀",
        "👩‍👩‍👧",
        "𠮷",
        "ñ",
        "ﬁ",
        "Ａ１",
        "…",
        "「」",
        "\u3000",
        "0.5%",
    ]
    others += ["reserved_0", "<unk>", "</s>", "<s>", "<0x0A>", "e\u0301", "\ufeff", "\x00"]
    lines = []
    for _ in range(400):
        parts = []
        for _ in range(draw.randint(1, 5)):
            text = draw.choice(bilingual[draw.choice(("zh", "en"))])
            start = draw.randrange(len(text))
            parts += [text[start : start + draw.randint(1, 30)], draw.choice(others)]
        lines.append("".join(parts))
    return lines


def test_plain_text_has_the_ids_of_our_tokenizer(
    llama: LlamaCpp, tokenizer: Tokenizer, bilingual: dict[str, tuple[str, ...]]
) -> None:
    lines = mixed_lines(bilingual)
    differing = [x for x in lines if llama.tokenize(x, markers=False) != tokenizer.encode(x)]
    assert differing == []


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(text=st.text(max_size=40))
def test_any_text_has_the_ids_of_our_tokenizer(
    llama: LlamaCpp, tokenizer: Tokenizer, text: str
) -> None:
    assert llama.tokenize(text, markers=False) == tokenizer.encode(text)


def test_a_rendered_conversation_has_the_ids_of_a_prompt_built_as_ids(
    llama: LlamaCpp, tokenizer: Tokenizer
) -> None:
    said = ["你是一个助手。", " Hello there! \n", "你好，孩子们。", "How are you? 😀"]
    system, first, answer, second = said
    turns = [
        {"role": "user", "content": first},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": second},
    ]
    for text in (system, ""):
        conversation = Conversation(text, ((first, answer),), second)
        messages = [{"role": "system", "content": text}, *turns]
        assert llama.chat_ids(messages) == prompt_ids(tokenizer, conversation)
    assert llama.chat_ids(turns) == prompt_ids(tokenizer, conversation)
    assert llama.chat_ids(turns[:1])[0] == USER
    assert llama.chat_ids(turns[:1])[-1] == ASSISTANT


def test_marker_words_of_a_user_are_markers_to_llama_cpp_alone(
    llama: LlamaCpp, tokenizer: Tokenizer
) -> None:
    text = "a reserved_0 b <unk> c"
    theirs = llama.chat_ids([{"role": "user", "content": text}])
    assert theirs.count(USER) == 2 and theirs.count(SYSTEM) == 1
    assert prompt_ids(tokenizer, Conversation("", (), text)).count(USER) == 1


def generate(llama: LlamaCpp, prompt: list[int], new_tokens: int) -> list[int]:
    """The likeliest continuation, up to and with `</s>`."""
    request = {"prompt": prompt, "n_predict": new_tokens, "temperature": 0, "return_tokens": True}
    return [int(i) for i in llama._post("/completion", request)["tokens"]]


@torch.no_grad()
def test_greedy_text_is_that_of_the_model(
    llama: LlamaCpp, model: Transformer, tokenizer: Tokenizer
) -> None:
    for text in ("Hello there", "中华人民共和国", "春天来了"):
        prompt = prompt_ids(tokenizer, Conversation("", (), text))
        ids = list(prompt)
        for _ in range(24):
            ids.append(int(model.logits(model(torch.tensor([ids]))[0, -1]).argmax()))
        ours = ids[len(prompt) :]
        assert len(set(ours)) > 8
        assert generate(llama, prompt, 24) == ours


def test_generation_ends_with_the_end_of_sequence(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """A network that says `</s>` wherever it would have said its first word."""
    prompt = [USER, *tokenizer.encode("Hello"), ASSISTANT]
    with torch.no_grad():
        first = int(model.logits(model(torch.tensor([prompt]))[0, -1]).argmax())
        ending = make_model(GROUPED)
        rows = ending.lm_head.weight
        rows[[2, first]] = rows[[first, 2]]
    gguf.write(ending, tmp_path / "m.gguf", "f32", metadata(GROUPED, tokenizer, "f32", "test"))
    with opened(tmp_path / "m.gguf", 64) as llama:
        assert generate(llama, prompt, 10) == [2]


def listening_ports() -> set[str]:
    """Internet sockets on which this process waits for connections."""
    mine = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            mine.add(str(descriptor.readlink()))
        except FileNotFoundError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in mine:
                found.add(fields[1])
    return found


def test_no_port_is_opened_and_nothing_is_left_behind(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)):
        assert len(listening_ports()) == 1
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with opened(path, 64) as llama:
        assert llama.tokenize("a", markers=False)
        assert listening_ports() == set()
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_folder_too_long_for_a_socket_is_named(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(UserError, match="set TMPDIR to a shorter folder"), opened(path, 64):
        pass
    assert list(deep.iterdir()) == []


def test_a_refused_request_says_why(llama: LlamaCpp) -> None:
    with pytest.raises(RuntimeError, match=r"refused /completion: .*exceeds"):
        llama.log_probabilities([5] * 300, [299], 640)


def test_a_file_that_llama_cpp_cannot_load_is_damaged(path: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.gguf"
    half.write_bytes(path.read_bytes()[:200_000])
    with (
        pytest.raises(DamagedError, match=r"half\.gguf cannot be loaded by llama\.cpp"),
        opened(half, 64),
    ):
        pass


@pytest.mark.parametrize(
    ("type_", "lowest", "highest"),
    [("Q8_0", 0.003, 0.008), ("Q6_K", 0.01, 0.03), ("Q5_0", 0.03, 0.06), ("Q4_K", 0.05, 0.10)],
)
def test_packed_rows_are_as_far_off_as_their_bits(
    type_: str, lowest: float, highest: float
) -> None:
    """Relative error in the mean square, of normal numbers, read by the gguf package."""
    kind = reference.GGMLQuantizationType[type_]
    numbers, size = reference.GGML_QUANT_SIZES[kind]
    weight_OI = torch.randn(7, 512, generator=torch.Generator().manual_seed(3)) * 0.02
    packed_OI = pack(weight_OI, int(kind), 512 // numbers * size)
    back_OI = torch.from_numpy(reference.quants.dequantize(packed_OI.numpy(), kind))
    error = float((back_OI - weight_OI).norm() / weight_OI.norm())
    assert lowest < error < highest


def test_blocks_are_those_of_the_gguf_package_whatever_the_threads() -> None:
    """Where it has a packer of its own."""
    kind = reference.GGMLQuantizationType.Q8_0
    weight_OI = torch.randn(9, 96, generator=torch.Generator().manual_seed(4))
    theirs = reference.quants.quantize(weight_OI.numpy(), kind)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 4, 16):
            torch.set_num_threads(threads)
            assert (pack(weight_OI, int(kind), 3 * 34).numpy() == theirs).all()
    finally:
        torch.set_num_threads(before)
