"""What an RT-DETRv2 costs, by formula: parameters, FLOPs, traffic and peak of memory. Torch-free.

Convolutions and matrix products are counted; sampling (grid_sample), the matching of boxes, norms
and activations are not. Denoising queries, in training alone, depend on the most boxes that a frame
of the batch has; without a batch that is `objects`. Estimates of memory rest on what operators save
for backward, and were held to the peak of live storages on a CPU.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.core.nouns import DTYPE_BYTES, Dtype
from bench.workload import Phase
from workloads._costs.conv_cost import Conv
from workloads._costs.transformer_cost import (
    attention_flops,
    layer_flops,
    layer_norm_parameters,
    layer_weights,
    linear_parameters,
    projection_flops,
)
from workloads._surveillance.detection_shape import HEADS, POINTS, STRIDES, DetectorShape

_TRAINING = Phase(name="train", item="frame", is_training=True)
ADAMW_COPIES = 4
"""fp32 weights, gradients and two moments."""


@dataclass(frozen=True, kw_only=True)
class Detector(DetectorShape):
    """A detector's costs."""

    # Parameters --------------------------------------------------------------------------------

    def num_parameters(self) -> int:
        """Return those of the ResNet, the neck, the encoder's layer, the heads and the decoder."""
        hidden, backbone, neck = self.hidden, list(self.backbone()), list(self.neck())
        kernels = sum(one.num_weights for one in backbone + neck)
        normed = neck if self.frozen_norms else backbone + neck
        norms = sum(2 * one.channels_out for one in normed)
        embedding = (self.classes + 1) * hidden if self.denoising else 0
        chosen = linear_parameters(hidden, outputs=hidden) + layer_norm_parameters(hidden)
        layer = self._attention_parameters() + self._feedforward_parameters()
        decoder = self.decoder_layers * (
            layer + self._sampling_parameters() + layer_norm_parameters(hidden)
        )
        position = linear_parameters(4, outputs=2 * hidden)
        position += linear_parameters(2 * hidden, outputs=hidden)
        heads = (1 + self.decoder_layers) * self._head_parameters()  # one for the places
        return kernels + norms + layer + embedding + chosen + position + decoder + heads

    def _attention_parameters(self) -> int:
        """Of a self-attention with its norm."""
        return 4 * linear_parameters(self.hidden, outputs=self.hidden) + 2 * self.hidden

    def _feedforward_parameters(self) -> int:
        """Of a feed-forward with its norm."""
        up = linear_parameters(self.hidden, outputs=self.feedforward)
        return up + linear_parameters(self.feedforward, outputs=self.hidden) + 2 * self.hidden

    def _sampling_parameters(self) -> int:
        """Of where and how much a query samples, and of what is sampled, without its norm."""
        sampled = 3 * HEADS * len(STRIDES) * POINTS  # two coordinates and a weight
        projections = 2 * linear_parameters(self.hidden, outputs=self.hidden)
        return linear_parameters(self.hidden, outputs=sampled) + projections

    def _head_parameters(self) -> int:
        """Of the classes' layer and the box's three."""
        box = 2 * linear_parameters(self.hidden, outputs=self.hidden)
        box += linear_parameters(self.hidden, outputs=4)
        return box + linear_parameters(self.hidden, outputs=self.classes)

    # FLOPs -------------------------------------------------------------------------------------

    def num_denoising(self, phase: Phase, batch: Any = None) -> int:
        """Queries of a frame beside the usual ones: pairs of noisy copies, in whole groups."""
        if not phase.is_training or not self.denoising:
            return 0
        labels = [] if batch is None else batch["labels"]
        most = max((len(one["boxes"]) for one in labels), default=self.objects)
        return 2 * most * max(self.denoising // most, 1) if most else 0

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """FLOPs of a frame; in training those of backward too, less what needs no gradient.

        That are the frame, the boxes that queries start from, and the first queries, which are cut
        from the encoder (not so where denoising adds trained ones).
        """
        extra = self.num_denoising(phase, batch)
        queries = self.queries + extra
        backbone = [one.flops for one in self.backbone()]
        forward = float(sum(backbone) + sum(one.flops for one in self.neck()))
        tokens = (self.pixels // STRIDES[-1]) ** 2
        forward += layer_flops(self.hidden, feedforward=self.feedforward, tokens=tokens)
        forward += self._head_flops(self.places)
        forward += projection_flops(self.hidden**2, tokens=self.places)
        forward += self.decoder_layers * self._decoder_layer_flops(queries)
        if not phase.is_training:
            return forward
        boxes = projection_flops(4 * 2 * self.hidden, tokens=queries) * self.decoder_layers
        first = 0.0 if extra else projection_flops(self.hidden**2, tokens=queries)
        return 3 * forward - backbone[0] - boxes - first

    def _decoder_layer_flops(self, queries: int) -> float:
        """FLOPs of a layer with its heads and the positions of its queries."""
        hidden, sampled = self.hidden, 3 * HEADS * len(STRIDES) * POINTS
        own = layer_weights(hidden, feedforward=self.feedforward)
        own += 2 * 4 * hidden + 2 * hidden**2  # positions from boxes
        own += hidden * sampled + hidden**2  # where to sample, and what comes of it
        flops = projection_flops(own, tokens=queries) + self._head_flops(queries)
        flops += attention_flops(hidden, pairs=queries**2)
        return flops + projection_flops(hidden**2, tokens=self.places)

    def _head_flops(self, tokens: int) -> float:
        weights = 2 * self.hidden**2 + 4 * self.hidden + self.hidden * self.classes
        return projection_flops(weights, tokens=tokens)

    # Traffic and memory ------------------------------------------------------------------------

    def bytes_per_item(self, phase: Phase, *, dtype_bytes: int) -> float:
        """Return the least traffic: outputs of convolutions written and read, weights once a step.

        Training moves activations three times (forward, and twice back), and AdamW reads weight,
        gradient and two moments and writes weight and moments, beside a read for each pass and a
        gradient written.
        """
        outputs = _outputs([*self.backbone(), *self.neck()]) + self.hidden * self.places
        moved = (3 * self.pixels**2 + 2 * outputs) * dtype_bytes
        weights = self.num_parameters()
        if phase.is_training:
            return 3 * moved + 10 * 4 * weights / self.batch
        return moved + weights * dtype_bytes / self.cameras

    def saved_bytes(self, *, dtype: Dtype) -> int:
        """Return what one frame keeps for backward.

        A convolution's output and what activation makes of it; SiLU keeps its input as well. Frozen
        norms keep nothing, but under autocast they make fp32 of a half-precision output. Levels are
        joined four times. Of each place the encoder's heads keep eight vectors, each decoder layer
        one; of each query that many samples, twice, and some twenty vectors: all of it in fp32,
        since norms and softmax are.
        """
        width, hidden = DTYPE_BYTES[dtype], self.hidden
        queries = self.queries + self.num_denoising(_TRAINING)
        frozen = width if width == 4 else 4 + width
        kept = (frozen if self.frozen_norms else 2 * width) * _outputs(self.backbone())
        joined = 2 * hidden * sum((self.pixels // stride) ** 2 for stride in (8, 16, 16, 32))
        kept += width * (3 * self.pixels**2 + 3 * _outputs(self.neck()) + joined)
        sampled = 2 * len(STRIDES) * POINTS * (hidden + HEADS)
        query = sampled + 20 * hidden + 2 * self.feedforward + 10 * self.classes
        place = (8 + self.decoder_layers) * hidden + 2 * self.classes
        return kept + 4 * (self.places * place + self.decoder_layers * queries * query)

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Return the peak of a step.

        Training: fp32 weights, gradients and two moments with autocast's copies, what backward
        needs, the stem's output twice. Inference: weights, frames that lie ready, the levels of the
        ResNet, and the larger of the stem at work and a decoder layer that samples: ten vectors of
        each place, and in fp32 three of each sample.
        """
        width = DTYPE_BYTES[dtype]
        widest = self.stem * (self.pixels // 2) ** 2
        if phase.is_training:
            cast = width if width < 4 else 0
            state = self.num_parameters() * (4 * ADAMW_COPIES + cast)
            return state + self.batch * (self.saved_bytes(dtype=dtype) + 2 * widest * width)
        levels = [(self.pixels // 4) ** 2 * self.widths[0]]
        levels += [
            channels * (self.pixels // stride) ** 2
            for channels, stride in zip(self.widths[1:], STRIDES, strict=True)
        ]
        samples = 3 * len(STRIDES) * POINTS * self.queries
        decoding = self.hidden * (10 * self.places * width + 4 * samples)
        frame = (12 * self.pixels**2 + sum(levels)) * width + max(3 * widest * width, decoding)
        return self.num_parameters() * width + self.cameras * frame


def _outputs(convolutions: Iterable[Conv]) -> int:
    return sum(one.num_outputs for one in convolutions)
