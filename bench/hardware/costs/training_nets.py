"""Decoders as a large training run states them: sizes by name or spelled out, what each costs.

A multiply-add is 2 FLOP. Model FLOPs are those of PaLM (arXiv 2204.02311, appendix B): attention in
full, nothing computed again. Embedding look-up, norms and biases are left out of products.
"""

from dataclasses import dataclass, replace

from bench.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DecoderNet:
    """A decoder with all that decides its cost."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    sequence: int
    is_gated: bool
    """The feed-forward has three matrices (SwiGLU) instead of two."""
    is_tied: bool
    """Embedding and logits share one matrix."""
    is_fused: bool = True
    """Attention in one kernel that keeps no scores (FlashAttention); else scores in memory."""

    @property
    def kv_width(self) -> int:
        """Elements of one token's key (or value) in one layer."""
        return self.kv_heads * (self.hidden // self.heads)

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer's matrices."""
        attention = 2 * self.hidden * (self.hidden + self.kv_width)
        return attention + (3 if self.is_gated else 2) * self.hidden * self.ffn

    @property
    def num_parameters(self) -> int:
        """Matrices of the layers, embedding and, where it is its own, the matrix of the logits."""
        return self.layers * self.layer_parameters + self.vocabulary_parameters

    @property
    def vocabulary_parameters(self) -> int:
        """Embedding and logits together."""
        return self.vocab * self.hidden * (1 if self.is_tied else 2)

    @property
    def flops_per_token(self) -> float:
        """Forward and backward; attention in full."""
        matrices = self.layers * self.layer_parameters + self.vocab * self.hidden
        return 6.0 * matrices + 12.0 * self.layers * self.hidden * self.sequence

    @property
    def computed_flops_per_token(self) -> float:
        """What no program computes less of: fused attention skips the masked half."""
        skipped = 6.0 * self.layers * self.hidden * self.sequence
        return self.flops_per_token - (skipped if self.is_fused else 0.0)


def _llama(name: str, *, sizes: tuple[int, int, int, int, int], sequence: int = 8192) -> DecoderNet:
    hidden, layers, heads, kv_heads, ffn = sizes
    vocab = 32_000 if name.startswith("llama2") else 128_256
    return DecoderNet(name=name, hidden=hidden, layers=layers, heads=heads, kv_heads=kv_heads,
                      ffn=ffn, vocab=vocab, sequence=sequence,
                      is_gated=True, is_tied=name == "llama3-1b")  # fmt: skip


def _gpt(name: str, *, hidden: int, layers: int, heads: int, sequence: int = 2048) -> DecoderNet:
    return DecoderNet(name=name, hidden=hidden, layers=layers, heads=heads, kv_heads=heads,
                      ffn=4 * hidden, vocab=51_200, sequence=sequence,
                      is_gated=False, is_tied=True)  # fmt: skip


def bare_decoder(*, hidden: int, layers: int, sequence: int) -> DecoderNet:
    """Layers alone, four times as wide inside, all of attention computed.

    One word, and heads one wide: any number of ranks shares them.
    """
    return DecoderNet(name="decoder", hidden=hidden, layers=layers, heads=hidden, kv_heads=hidden,
                      ffn=4 * hidden, vocab=1, sequence=sequence,
                      is_gated=False, is_tied=True, is_fused=False)  # fmt: skip


NETS = {
    one.name: one
    for one in (
        _llama("llama3-1b", sizes=(2048, 16, 32, 8, 8192)),
        _llama("llama3-8b", sizes=(4096, 32, 32, 8, 14336)),
        _llama("llama3-70b", sizes=(8192, 80, 64, 8, 28672)),
        _llama("llama2-7b", sizes=(4096, 32, 32, 32, 11008), sequence=4096),
        _llama("llama2-70b", sizes=(8192, 80, 64, 8, 28672), sequence=4096),
        _gpt("gpt3-175b", hidden=12288, layers=96, heads=96),
    )
}
"""Sizes: config.json of meta-llama/Llama-3.2-1B, Meta-Llama-3-8B, -70B, Llama-2-7b, -70b on
huggingface.co; GPT-3: arXiv 2005.14165, table 2.1, with Megatron-LM's vocabulary of 51,200."""
_EXAMPLE = "gpt:h=4096,layers=32,heads=32,seq=2048"
_COUNTS = {
    "h": "hidden", "layers": "layers", "heads": "heads", "kv": "kv_heads", "ffn": "ffn",
    "vocab": "vocab", "seq": "sequence",
}  # fmt: skip
_WORDS = {
    "gated": ("is_gated", {"yes": True, "no": False}),
    "tied": ("is_tied", {"yes": True, "no": False}),
    "attention": ("is_fused", {"fused": True, "unfused": False}),
}
_MOST = 1 << 24


def parse_net(text: str) -> DecoderNet:
    """Read a named net, with changes behind a colon, or one spelled out: gpt:h=..,layers=.., ...

    `UsageError` in one line for anything else.
    """
    name, _, rest = text.strip().partition(":")
    if name != "gpt" and name not in NETS:
        known = ", ".join(NETS)
        raise UsageError(
            f"--net {text!r} is not one of {known}, imaging (as measured, with no changes behind "
            f"it), or spelled out: {_EXAMPLE}"
        )
    changes = _changes(rest)
    if name in NETS:
        return _checked(replace(NETS[name], **changes))  # type: ignore[arg-type]
    names = {field: key for key, field in _COUNTS.items()}
    absent = [names[key] for key in ("hidden", "layers", "heads") if key not in changes]
    if absent:
        raise UsageError(f"--net {text!r} lacks {', '.join(absent)}; write {_EXAMPLE}")
    hidden, layers, heads = (int(changes[key]) for key in ("hidden", "layers", "heads"))
    # A feed-forward of another width, or other heads, is said with ffn= and kv=.
    net = replace(_gpt(text, hidden=hidden, layers=layers, heads=heads), kv_heads=heads)
    return _checked(replace(net, **changes))  # type: ignore[arg-type]


def _changes(text: str) -> dict[str, int | bool]:
    found: dict[str, int | bool] = {}
    for part in filter(None, text.split(",")):
        key, _, value = (one.strip() for one in part.partition("="))
        if key in _WORDS:
            field, words = _WORDS[key]
            if value not in words:
                raise UsageError(f"--net: {key}={value} is not one of {', '.join(words)}")
            found[field] = words[value]
            continue
        if key not in _COUNTS:
            allowed = ", ".join((*_COUNTS, *_WORDS))
            raise UsageError(f"--net: {part!r} is not key=value with one of {allowed}")
        if not (value.isascii() and value.isdigit() and 0 < int(value) <= _MOST):
            raise UsageError(f"--net: {key}={value} is not a whole number from 1 to {_MOST}")
        found[_COUNTS[key]] = int(value)
    return found


def _checked(net: DecoderNet) -> DecoderNet:
    if net.hidden % net.heads:
        raise UsageError(
            f"--net: a hidden size of {net.hidden} is no multiple of {net.heads} heads"
        )
    if net.heads % net.kv_heads:
        raise UsageError(
            f"--net: {net.heads} heads are no multiple of {net.kv_heads} key heads (kv)"
        )
    return net
