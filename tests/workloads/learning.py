"""How much a net has learned: Dice of a segmentation, and the loss of text beside its bounds.

A predictor of the generated text that ignores context cannot beat the unigram entropy, and none can
beat the entropy rate. Entropies are in nats.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics.meandice import compute_dice
from monai.networks.utils import one_hot
from torch import nn

from workloads._imaging.imaging_net import segment
from workloads._llm import text
from workloads._llm.llm_net import causal_loss


def entropy_nats(probabilities: text.Floats) -> float:
    """Shannon entropy; what never happens counts nothing."""
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())


def source_unigram_entropy_nats() -> float:
    """Exact loss of the best predictor that knows only how frequent each byte is."""
    return entropy_nats(text.stationary_distribution())


def source_entropy_rate_nats() -> float:
    """Exact loss of the best predictor there is: it knows the transition matrix."""
    rows = [entropy_nats(row) for row in text.transition_matrix()]
    return float(text.stationary_distribution() @ np.array(rows))


def unigram_entropy_nats(ids: npt.NDArray[np.int64]) -> float:
    """Entropy of the byte frequencies in a sample."""
    return entropy_nats(np.bincount(ids.ravel()) / ids.size)


def text_quality(net: nn.Module, samples: Sequence[Any], *, batch: int) -> dict[str, float]:
    """Mean loss on training windows, and the entropy of their own byte frequencies.

    The second is what the best predictor that ignores context would score on these very windows,
    so a model below it has learned something of the order of the text.
    """
    windows = [samples[index] for index in range(len(samples))]
    device = next(net.parameters()).device
    total_nats = 0.0
    with torch.no_grad():
        for start in range(0, len(windows), batch):
            ids = torch.stack(windows[start : start + batch]).to(device)
            total_nats += float(causal_loss(net, ids)) * len(ids)
    return {
        "loss_nats": total_nats / len(windows),
        "unigram_entropy_nats": unigram_entropy_nats(torch.stack(windows).numpy()),
    }


def dice_of(workload: Any, *, net: nn.Module, samples: Sequence[Any]) -> float:
    """Mean over volumes of the mean Dice over the foreground classes present in each."""
    device = next(net.parameters()).device
    was_training = net.training
    net.eval()
    scores = []
    with torch.inference_mode():
        for sample in samples:
            image, label = sample["image"].to(device), sample["label"].to(device)
            if image.dim() == 4:
                image, label = image[None], label[None]
            logits = segment(net, image, patch=workload.patch, sw_batch_size=workload.sw_batch_size)
            found = one_hot(logits.argmax(1, keepdim=True), workload.classes)
            dice = compute_dice(found, one_hot(label, workload.classes), include_background=False)
            scores.append(dice.nanmean().item())
    net.train(was_training)
    return float(sum(scores) / len(scores))
