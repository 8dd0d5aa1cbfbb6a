"""RT-DETRv2 of transformers with random weights: its loss, and boxes without suppression.

Letters: B frames, Q queries, K classes, S places of all levels. The loss is the library's: queries
are assigned to boxes on the host by scipy, once for each decoder layer and once for the encoder, so
that a step waits for the device as often. That is what training a detector of this kind costs.
Denoising queries draw on the device, within the library; tiny has none, so that its output can be
compared. Frames without boxes are not trained on: they would leave parameters without gradient.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers.models.rt_detr.configuration_rt_detr_resnet import RTDetrResNetConfig
from transformers.models.rt_detr_v2.configuration_rt_detr_v2 import RTDetrV2Config
from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import RTDetrV2ForObjectDetection

from workloads._surveillance.average_precision import Boxes, ap50
from workloads._surveillance.detection_shape import HEADS, POINTS, DetectorShape


def build(shape: DetectorShape) -> nn.Module:
    """Return the detector."""
    backbone = RTDetrResNetConfig(
        embedding_size=shape.stem,
        hidden_sizes=list(shape.widths),
        depths=list(shape.depths),
        layer_type=shape.block,
        out_indices=[2, 3, 4],
    )
    config = RTDetrV2Config(
        backbone_config=backbone,
        freeze_backbone_batch_norms=shape.frozen_norms,
        encoder_in_channels=list(shape.widths[1:]),
        encoder_hidden_dim=shape.hidden,
        encoder_ffn_dim=shape.feedforward,
        encoder_attention_heads=HEADS,
        hidden_expansion=shape.expansion,
        decoder_in_channels=[shape.hidden] * 3,
        d_model=shape.hidden,
        decoder_ffn_dim=shape.feedforward,
        decoder_attention_heads=HEADS,
        decoder_n_points=POINTS,
        decoder_layers=shape.decoder_layers,
        num_queries=shape.queries,
        num_denoising=shape.denoising,
        num_labels=shape.classes,
    )
    net = RTDetrV2ForObjectDetection(config)
    for module in net.modules():
        _start(module)
    return net  # type: ignore[no-any-return]


@torch.no_grad()
def _start(module: nn.Module) -> None:
    """Start convolutions and norms as torchvision's ResNet does.

    The library's scales of norms are near 0, for weights that are loaded: what an untrained net
    computes fades to 1e-16 with them, and to nothing in fp16.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm2d):
        module.weight.fill_(1.0)
        module.bias.fill_(0.0)


def loss(net: Any, batch: Any) -> torch.Tensor:
    """Return the sum of the library's losses."""
    total: torch.Tensor = net(pixel_values=batch["frames"], labels=batch["labels"]).loss
    return total


def detect(net: Any, batch: Any) -> dict[str, torch.Tensor]:
    """Return boxes (B, Q, 4), centre and size in parts of the frame, their logits (B, Q, K), and
    the logits of all places (B, S, K) that queries were chosen from."""
    found = net(pixel_values=batch["frames"])
    return {
        "boxes": found.pred_boxes,
        "logits": found.logits,
        "places": found.enc_outputs_class,
    }


def found_boxes(found: dict[str, torch.Tensor]) -> list[Boxes]:
    """Return the detections of each frame: the Q surest of all queries and classes."""
    scores_BQK = found["logits"].float().sigmoid()  # noqa: N806
    surest = scores_BQK.flatten(1).topk(scores_BQK.shape[1], dim=1)
    queries = surest.indices // scores_BQK.shape[2]
    return [
        Boxes(
            corners=corners_of(boxes[query]).double().numpy(),
            classes=(place % scores_BQK.shape[2]).numpy(),
            scores=score.double().numpy(),
        )
        for boxes, query, place, score in zip(
            found["boxes"].float(), queries, surest.indices, surest.values, strict=True
        )
    ]


def corners_of(boxes: torch.Tensor) -> torch.Tensor:
    """Return corners (N, 4) of boxes that are centre and size."""
    centre, size = boxes[:, :2], boxes[:, 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=1)


def precision_on(net: nn.Module, samples: Iterable[dict[str, torch.Tensor]]) -> float:
    """Return AP50 of the net on samples with their boxes."""
    found, truth = [], []
    net.eval()
    with torch.inference_mode():
        for sample in samples:
            found += found_boxes(detect(net, {"frames": sample["frame"][None]}))
            corners = corners_of(sample["boxes"]).double().numpy()
            truth.append(Boxes(corners=corners, classes=sample["class_labels"].numpy()))
    return ap50(found, truth=truth)


def in_any_order(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what does not depend on the order of queries: rounding may change it."""
    every = {name: found[name].float().sort(dim=1).values for name in ("boxes", "logits")}
    return {**every, "places": found["places"]}


def check_output(output: Any, *, classes: int) -> None:
    """Raise ValueError for a loss or detections that cannot be right."""
    if isinstance(output, torch.Tensor):
        if not bool(output.isfinite().all()):
            raise ValueError("loss is not finite")
        return
    boxes, logits = output["boxes"], output["logits"]
    if not bool(logits.isfinite().all()):
        raise ValueError("logits are not finite")
    if logits.shape[-1] != classes:
        raise ValueError(f"logits have shape {tuple(logits.shape)}, not {classes} classes")
    if not bool(((boxes >= 0) & (boxes <= 1)).all()):
        raise ValueError("boxes are outside the frame's 0 to 1")
