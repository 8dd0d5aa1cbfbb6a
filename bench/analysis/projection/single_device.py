"""What a measured step of one device says of the formula: measured over predicted."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.projection.clusters import cluster_of
from bench.analysis.projection.measured import Start
from bench.core.errors import NothingMatchedError
from bench.core.nouns import Layout
from bench.hardware.costs.training_jobs import SOFTWARE, TrainingJob
from bench.hardware.costs.training_nets import DecoderNet

_KEYS = {
    "hidden": "hidden", "layers": "layers", "heads": "heads", "kv_heads": "kv_heads",
    "intermediate": "ffn", "vocab": "vocab", "sequence_tokens": "sequence", "is_tied": "is_tied",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SingleDevice:
    """A measured row set against the formula."""

    title: str
    measured_s: float
    predicted_s: float

    @property
    def factor(self) -> float:
        """Measured over predicted."""
        return self.measured_s / self.predicted_s

    @property
    def words(self) -> str:
        """What was done with it, for a note."""
        return (
            f"compute is scaled by x{self.factor:.3g}, which {self.title} took over what the "
            f"formula predicts for it ({self.measured_s:.3g} s measured, {self.predicted_s:.3g} s "
            "predicted)"
        )


def against_formula(starts: Sequence[Start]) -> SingleDevice:
    """Set the first decoder's training against the formula."""
    for start in starts:
        sizes = json.loads(start.params_json or "{}")
        chip = start.roofs.chip
        if not start.is_training or chip is None or not set(_KEYS) <= set(sizes):
            continue
        if start.dtype not in ("bf16", "fp16"):
            continue
        net = DecoderNet(
            name=start.workload, is_gated=True, **{_KEYS[key]: sizes[key] for key in _KEYS}
        )
        job = TrainingJob(
            net=net, layout=Layout(), micro_batch=start.batch, recompute="none",
            software=SOFTWARE["today"],
        )  # fmt: skip
        cluster = cluster_of(chip, devices=1, model=None, dtype=start.dtype)
        predicted_s = cluster.step(job, speed=cluster.speed()).seconds
        title = f"{start.workload} {start.size} on {chip.id}"
        return SingleDevice(title=title, measured_s=start.step_s, predicted_s=predicted_s)
    raise NothingMatchedError(
        "the files hold no training of a decoder in bf16 or fp16 on one chip of the catalogue, "
        "such as llm-train: leave them out, and the catalogue alone decides"
    )
