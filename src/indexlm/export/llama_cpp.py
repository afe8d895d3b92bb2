"""The door to llama.cpp, as the wheel `xllamacpp` ships it: run a GGUF file, and pack its blocks.

The wheel's only public way in is llama.cpp's server. It is put on a socket file in a folder that
only this user can open: no port is opened, and this process talks to itself.

Shape suffixes: T positions, V vocabulary, O rows, I columns of a matrix.
"""

import ctypes
import http.client
import json
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from indexlm.errors import DamagedError, UserError
from indexlm.tokens.chat_format import Conversation, prompt_ids
from indexlm.tokens.tokenizer import EOS, Tokenizer, read_model

LOWEST = -80.0
"""Log-probabilities below this are given as this: llama.cpp takes the logarithm of a float32
probability, and those end at e^-87."""

LONGEST_ADDRESS = 103
"""Bytes of a socket's path: macOS keeps 104 with the end, Linux 108."""

PROBE_TEXTS = (
    "Hello there, how are you today?",
    "中华人民共和国成立了。学习要有耐心，\n\n不能只看眼前的得失！",
    " 12,345  spaces\tand「引号」… 𠮷 👩‍👩‍👧 é ﬁ Ａ",
    "<unk> reserved_0 reserved_1 </s> <s>",
)

ERRORS_ONLY = 1
"""Of llama.cpp's levels of logging."""


class LlamaCpp:
    """A GGUF file that llama.cpp has loaded; made by `opened`."""

    def __init__(self, address: str) -> None:
        self._address = address

    def log_probabilities(
        self, ids: Sequence[int], places: Sequence[int], vocab_size: int
    ) -> Tensor:
        """Log-probabilities of the next token after `ids[: place + 1]` for each place, float32
        [T, V], at least LOWEST.

        llama.cpp gives no raw logits. Log-probabilities are the logits less one number per
        position, so two models agree in the one where they agree in the other.
        """
        found_TV = torch.empty(len(places), vocab_size)
        for row_V, place in zip(found_TV, places, strict=True):
            answer = self._post(
                "/completion",
                {
                    "prompt": list(ids[: place + 1]),
                    "n_predict": 1,
                    "n_probs": vocab_size,
                    # A sampled byte is held back until its character is whole, and the
                    # probabilities with it; they are of the model, the bias does not touch them.
                    "temperature": 0,
                    "logit_bias": [[EOS, 1e9]],
                },
            )
            (step,) = answer["completion_probabilities"]
            entries = step["top_logprobs"]
            tokens = torch.tensor([entry["id"] for entry in entries])
            assert len(tokens.unique()) == vocab_size, f"{len(entries)} of {vocab_size} tokens"
            row_V[tokens] = torch.tensor([entry["logprob"] for entry in entries])
        return found_TV.clamp_min(LOWEST)

    def tokenize(self, text: str, *, markers: bool) -> list[int]:
        """Ids of a prompt, with what the file says is put before it. With `markers` the words of
        the special tokens become their ids, as llama.cpp reads every rendered conversation."""
        request = {"content": text, "add_special": True, "parse_special": markers}
        return [int(i) for i in self._post("/tokenize", request)["tokens"]]

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Ids of a conversation rendered with the file's chat template."""
        rendered = self._post("/apply-template", {"messages": [dict(m) for m in messages]})
        return self.tokenize(rendered["prompt"], markers=True)

    def _post(self, route: str, request: Mapping[str, Any]) -> Any:
        connection = _SocketFile(self._address)
        try:
            body = json.dumps(request).encode()
            connection.request("POST", route, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"llama.cpp refused {route}: {content.decode(errors='replace')}")
        return json.loads(content)


@contextmanager
def opened(
    path: Path, positions: int, *, fast_attention: bool = True, float32_cache: bool = False
) -> Iterator[LlamaCpp]:
    """Load a GGUF file for prompts and answers of up to `positions` ids together.

    By default llama.cpp takes its fast attention, which sums in float16 on a CPU, and keeps keys
    and values in float16. Without either, what is left is the file's own error.

    Raises UserError where the package is missing, DamagedError where llama.cpp cannot load it.
    """
    package = _package()
    params = package.CommonParams()
    params.model.path = str(path)
    # One more than asked: llama.cpp keeps a place free for the token it predicts.
    params.n_ctx = positions + 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = torch.get_num_threads()
    params.cpuparams_batch.n_threads = torch.get_num_threads()
    params.n_threads_http = 1
    params.verbosity = ERRORS_ONLY
    # Left out: a first empty run, a fit of the context to free memory, finished prompts kept in
    # memory, pages for a browser.
    params.warmup = False
    params.fit_params = False
    params.cache_ram_mib = 0
    params.ui = False
    if float32_cache:
        params.cache_type_k = package.ggml_type.GGML_TYPE_F32
        params.cache_type_v = package.ggml_type.GGML_TYPE_F32
    if not fast_attention:
        params.flash_attn_type = package.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    with tempfile.TemporaryDirectory(prefix="indexlm-") as folder:
        address = str(Path(folder) / "llama.sock")
        if len(os.fsencode(address)) > LONGEST_ADDRESS:
            raise UserError(f"{folder} is too long for a socket; set TMPDIR to a shorter folder")
        params.hostnames = [address]
        try:
            server = package.Server(params)
        except RuntimeError as error:
            raise DamagedError(f"{path} cannot be loaded by llama.cpp: {error}") from error
        try:
            yield LlamaCpp(address)
        finally:
            # Its destructor ends the loop and gives the weights back.
            del server


def check_ids(path: Path, llama: LlamaCpp, tokenizer: Tokenizer) -> None:
    """Plain text and a conversation must become the ids that the model was trained on.

    Raises DamagedError naming `path`, which `llama` has loaded, and the text. Texts are compared as
    the tokenizer's own rules leave them: llama.cpp applies none but the space before.
    """
    texts = [_normalised(text, tokenizer) for text in PROBE_TEXTS]
    for text in texts:
        theirs = llama.tokenize(text, markers=False)
        if theirs != tokenizer.encode(text):
            raise DamagedError(f"{path}: llama.cpp cuts {text!r} into other ids, {theirs}")
    first, second, third, _ = texts
    conversation = Conversation(first, ((second, third),), first)
    messages = [
        {"role": "system", "content": first},
        {"role": "user", "content": second},
        {"role": "assistant", "content": third},
        {"role": "user", "content": first},
    ]
    theirs = llama.chat_ids(messages)
    if theirs != prompt_ids(tokenizer, conversation):
        raise DamagedError(f"{path}: llama.cpp renders a conversation as other ids, {theirs}")


def _normalised(text: str, tokenizer: Tokenizer) -> str:
    """What is cut into ids, less the space before, which llama.cpp puts there itself."""
    normal = str(tokenizer.processor.Normalize(text)).replace("\u2581", " ")
    spaced = read_model(tokenizer.path).normalizer_spec.add_dummy_prefix
    return normal.removeprefix(" ") if spaced else normal


def pack(weight_OI: Tensor, type_number: int, row_bytes: int) -> Tensor:
    """Quantise float32 rows to a block type of ggml, uint8 [O, row_bytes].

    llama.cpp's own C function does it: the K-quants search scales and minima for every block, and
    a second implementation would be a second format. Rows are shared out to threads.
    """
    assert weight_OI.dtype == torch.float32 and weight_OI.is_contiguous()
    library = ctypes.CDLL(_package().xllamacpp.__file__)
    quantise = library.ggml_quantize_chunk
    quantise.restype = ctypes.c_size_t
    quantise.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    rows, columns = weight_OI.shape
    packed = torch.empty(rows, row_bytes, dtype=torch.uint8)
    workers = torch.get_num_threads()
    step = -(-rows // workers)

    def pack_from(start: int) -> None:
        count = min(step, rows - start)
        source, target = weight_OI.data_ptr(), packed.data_ptr()
        size = quantise(type_number, source, target, start * columns, count, columns, None)
        assert size == count * row_bytes, f"{size} bytes for {count} rows of {row_bytes}"

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(pack_from, range(0, rows, step)))
    return packed


class _SocketFile(http.client.HTTPConnection):
    def __init__(self, address: str) -> None:
        super().__init__("localhost")
        self._address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._address)


def _package() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise UserError(
            "GGUF files need the package xllamacpp; pip install 'indexlm[gguf]'"
        ) from error
    return xllamacpp
