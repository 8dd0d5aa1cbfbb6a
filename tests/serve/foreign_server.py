"""A server of tokens that is not ours: `transformers serve` with a tiny Llama and words as tokens.

Nothing is downloaded: the net has random weights, the tokenizer knows the words that the client
writes prompts of, and everything else as <unk>.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from bench.serve.endpoint.wire.connections import Address, parse_address
from bench.serve.endpoint.wire.dialect import WORDS

PATIENCE_S = 120.0
PAGES, PASS_TOKENS = 64, 2048
CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def write_model(folder: Path, net: Any) -> None:
    """Save a net of the llm workload, and a tokenizer that makes one token of each word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    marks = ["<unk>", "<s>", "</s>"]
    others = [f"w{index}" for index in range(net.config.vocab_size - len(marks) - len(WORDS))]
    words = {word: index for index, word in enumerate([*marks, *WORDS, *others])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    fast.chat_template = CHAT
    fast.save_pretrained(folder)
    net.set_attn_implementation("sdpa")
    net.config.max_position_embeddings = PASS_TOKENS
    net.generation_config.eos_token_id = None
    net.save_pretrained(folder)


@contextmanager
def foreign_server(folder: Path) -> Iterator[Address]:
    """Serve a folder's model on one thread, until the end of the context."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cache = folder / "cache"
    (cache / "hub").mkdir(parents=True)
    command = [
        *(sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)),
        *("--device", "cpu", "--attn-implementation", "sdpa", "--continuous-batching"),
        *("--cb-num-blocks", str(PAGES), "--cb-max-batch-tokens", str(PASS_TOKENS)),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    offline = {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    environment = {**os.environ, **offline, "OMP_NUM_THREADS": "1"}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(server, port=port, log=folder / "server.log")
            yield parse_address(f"http://127.0.0.1:{port}/v1")
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait_for(server: subprocess.Popen[bytes], *, port: int, log: Path) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_s and server.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"transformers serve does not answer: {log.read_text()[-2000:]}")
