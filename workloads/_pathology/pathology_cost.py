"""What a slide's net amounts to, by formula: parameters, FLOPs, memory. Plain Python, no torch.

D width, L layers, F feed-forward, n patches of a tile, t tokens of it (patches, class token,
registers), K tiles of a bag or a slide, h width of the attention over tiles. Products are counted,
2 FLOP a multiply-add, as FlopCounterMode does: the patch embedding (a convolution), the layers'
matrices and attention, the gated attention of Ilse et al. 2018, the weighted sum, the classifier.

Peaks of live storages (counted on a CPU, both phases, fp32 and bf16) are 1.05 to 1.25 times below
the estimates of memory.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

from bench.core.nouns import DTYPE_BYTES, Dtype
from bench.workload import RESIDENT_BATCHES, Phase
from workloads._costs.conv_cost import Conv
from workloads._costs.transformer_cost import (
    layer_flops,
    layer_norm_parameters,
    linear_parameters,
    projection_flops,
)

COLOURS = 3


@dataclass(frozen=True, kw_only=True)
class SlideNet:
    """The parameters that fix the net's cost; the defaults are UNI's and Phikon-v2's ViT-L/16."""

    hidden: int = 1024
    layers: int = 24
    heads: int = 16
    patch: int = 16
    """Pixels of a patch's side."""
    tile: int = 224
    """Pixels of a tile's side."""
    registers: int = 0
    is_gated: bool = False
    """SwiGLU in place of GELU in the feed-forward."""
    attention: int = 256
    """Width of the attention over tiles."""
    classes: int = 2
    batch: int = 1
    """Bags of a training step."""
    bag: int = 64
    """Tiles of a bag."""
    slide_tiles: int = 2048
    """Tiles of a generated slide; of a slide of --data the first so many at most."""
    tile_batch: int = 64
    """Tiles that inference encodes at once."""
    train_encoder: bool = True
    """False trains the head alone, on features of the tiles, as is done with a finished encoder."""
    learning_rate: float = 1e-4

    @property
    def feedforward(self) -> int:
        """Width of the feed-forward; Dinov2's gated one is two thirds of it, in eights."""
        full = 4 * self.hidden
        return (int(full * 2 / 3) + 7) // 8 * 8 if self.is_gated else full

    @property
    def patches(self) -> Conv:
        """The patch embedding of one tile."""
        return Conv(
            channels_in=COLOURS,
            channels_out=self.hidden,
            kernel=(self.patch, self.patch),
            positions=(self.tile // self.patch) ** 2,
            has_bias=True,
        )

    @property
    def tokens(self) -> int:
        """Tokens of one tile."""
        return self.patches.positions + 1 + self.registers

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is int and value < (0 if name == "registers" else 1):
                raise ValueError(f"{name} must be at least 1, not {value}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} must be a multiple of heads {self.heads}")
        if self.tile % self.patch:
            raise ValueError(f"tile {self.tile} must be a multiple of patch {self.patch}")
        if self.classes < 2:
            raise ValueError(f"classes must be at least 2, not {self.classes}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be greater than 0, not {self.learning_rate}")

    def _encoder_parameters(self) -> int:
        """Patches, class token and registers, positions; layers, each half with a norm before and a
        scale behind it; the last norm."""
        width, inner = self.hidden, self.feedforward
        norms = layer_norm_parameters(width)
        embeddings = self.patches.num_weights + (self.tokens + 1) * width
        layer = 4 * linear_parameters(width, outputs=width) + 2 * norms + 2 * width
        layer += linear_parameters(width, outputs=inner * (2 if self.is_gated else 1))
        layer += linear_parameters(inner, outputs=width)
        return embeddings + self.layers * layer + norms

    def head_parameters(self) -> int:
        """The attention's two gates and their score, and the classifier."""
        gates = 2 * linear_parameters(self.hidden, outputs=self.attention)
        score = linear_parameters(self.attention, outputs=1)
        return gates + score + linear_parameters(self.hidden, outputs=self.classes)

    def num_parameters(self) -> int:
        """Return those of encoder and head."""
        return self._encoder_parameters() + self.head_parameters()

    def tile_flops(self) -> float:
        """Forward FLOPs of the encoder for one tile."""
        layer = layer_flops(
            self.hidden, feedforward=self.feedforward, tokens=self.tokens, is_gated=self.is_gated
        )
        return self.patches.flops + self.layers * layer

    def _gates_flops(self, tiles: int) -> float:
        return projection_flops(2 * self.hidden * self.attention, tokens=tiles)

    def _head_flops(self, tiles: int) -> float:
        """Gates and score of each tile, the weighted sum of tiles, the classifier."""
        per_tile = projection_flops(self.attention + self.hidden, tokens=tiles)
        return (
            self._gates_flops(tiles) + per_tile + projection_flops(self.hidden, tokens=self.classes)
        )

    def tiles_of(self, phase: Phase, batch: Any) -> int:
        """Tiles of one bag or slide; those of a batch are alike."""
        if batch is None:
            return self.bag if phase.is_training else self.slide_tiles
        return int(batch["tiles"].shape[1])

    def batch_size(self, phase: Phase) -> int:
        """Return `batch` bags, or one slide, since slides differ in tiles."""
        return self.batch if phase.is_training else 1

    def items(self, phase: Phase, batch: Any) -> int:
        """Return bags or slides."""
        return self.batch_size(phase) if batch is None else len(batch["label"])

    def elements(self, phase: Phase, batch: Any) -> int:
        """Return tiles."""
        return self.items(phase, batch) * self.tiles_of(phase, batch)

    def sized_as(self, phase: Phase, batch: Any) -> Self:
        """Return this net for a generated slide of as many tiles as the batch's."""
        return self if phase.is_training else replace(self, slide_tiles=self.tiles_of(phase, batch))

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """FLOPs of a bag forward and backward, or of a slide forward.

        A backward is twice its forward less what would go back to the image; with a finished
        encoder it stops at the features: the gates' input and the weighted sum's need none.
        """
        tiles = self.tiles_of(phase, batch)
        head = self._head_flops(tiles)
        if not phase.is_training:
            return tiles * self.tile_flops() + head
        if not self.train_encoder:
            summed = projection_flops(self.hidden, tokens=tiles)
            return 3 * head - self._gates_flops(tiles) - summed
        return 3 * (tiles * self.tile_flops() + head) - tiles * self.patches.flops

    def _tile_bytes(self, *, number_bytes: int) -> int:
        """Bytes of a tile as it comes, and of its pixels as numbers before and after their norm."""
        return COLOURS * self.tile**2 * (1 + number_bytes)

    def saved_token_bytes(self, *, element_bytes: int) -> int:
        """What one token keeps in one layer for backward.

        In fp32 the inputs of two norms; then two norms' outputs, query, key, value, the attention's
        output, and what each of two scales takes; the feed-forward before and after its activation
        (gated: both halves, the activated one and the product).
        """
        inner = (4 if self.is_gated else 2) * self.feedforward
        return 2 * self.hidden * 4 + (8 * self.hidden + inner) * element_bytes

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Return the peak of a step.

        Training: weights, gradients and two moments in fp32, autocast's copy of the weights, what
        backward needs. Inference: weights, the slides kept ready, one layer at work on `tile_batch`
        tiles.
        """
        width = DTYPE_BYTES[dtype]
        tiles = self.tiles_of(phase, None)
        ready = RESIDENT_BATCHES * tiles * COLOURS * self.tile**2
        if not phase.is_training:
            at_work = min(self.tile_batch, tiles)
            inner = self.feedforward * (4 if self.is_gated else 2)
            layer = self.tokens * (4 * self.hidden + inner) * width
            features = 2 * tiles * (self.hidden + 2 * self.attention) * width
            busy = at_work * (layer + self._tile_bytes(number_bytes=2 * width))
            return self.num_parameters() * width + ready + features + busy
        trained = self.num_parameters() if self.train_encoder else self.head_parameters()
        cast_bytes = width if width < 4 else 0
        state = 4 * self.num_parameters() + (12 + cast_bytes) * trained
        head = 8 * tiles * (self.hidden + self.attention) * 4
        if not self.train_encoder:
            return state + self.batch * head
        pixels = self._tile_bytes(number_bytes=2 * 4 + cast_bytes)
        kept = self.layers * self.tokens * self.saved_token_bytes(element_bytes=width)
        return state + self.batch * (ready + head + tiles * (kept + pixels))

    def check(self, phase: Phase, output: Any) -> None:
        """Refuse what is not finite, and logits of another shape."""
        parts = {"loss": output} if phase.is_training else output
        for name, part in parts.items():
            if not bool(part.isfinite().all()):
                raise ValueError(f"{name} is not finite")
        # A server answers several slides at once.
        if not phase.is_training and output["logits"].shape[1:] != (self.classes,):
            shape = tuple(output["logits"].shape)
            raise ValueError(f"logits have shape {shape}, not {self.classes} for each slide")
