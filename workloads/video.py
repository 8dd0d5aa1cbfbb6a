"""Text to video as Wan does it: a transformer over latents, trained by flow matching and applied.

Training takes a forward and a backward a clip; making one takes `steps` steps of one forward or,
with guidance, of two: here it is inference that asks for more. Without --data: moving bars. With
it: a folder of stored latents. Left out: the text encoder, which runs once a prompt, the encoder of
pixels, and but for decode=true their decoder. It needs diffusers: pip install 'gapbench[video]'.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench.workload
from bench.workload import Phase, UsedData
from workloads._video.video_cost import VideoNet

TRAIN = Phase(name="train", item="clip", element="latent-token", is_training=True)
INFER = Phase(name="infer", item="clip", element="latent-token")


@dataclass(frozen=True, kw_only=True)
class Workload(VideoNet, bench.workload.Workload):
    """Wan's transformer of any shape; the defaults are Wan 2.1 1.3B."""

    summary = "text to video: Wan's transformer trained, clips made in steps; pixels by decode=true"
    domain = "video"
    phases = (TRAIN, INFER)
    accepts_data = "a folder of .safetensors, each with latents (C, T, h, w) and text (M, D)"
    libraries = ("workloads._video.video_net", "workloads._video.video_data")
    extras = {"diffusers": "video"}
    max_grad_norm = 1.0
    sizes = {
        "tiny": dict(heads=2, head_dim=24, layers=2, feedforward=96, channels=4, latent=(3, 8, 8),
                     text_tokens=2, text_dim=9, frequencies=32, batch=16, steps=4,
                     learning_rate=3e-3, decoder_width=4),
        "small": dict(heads=6, head_dim=64, layers=8, feedforward=1536, latent=(5, 32, 32),
                      text_tokens=64, text_dim=512, batch=2, steps=10, decoder_width=32),
        "base": {},
        "large": dict(heads=40, layers=40, feedforward=13824, latent=(21, 90, 160)),
    }  # fmt: skip
    """Base is Wan 2.1 1.3B at 480p; large one expert of Wan 2.2 A14B at 720p, as MLPerf has it."""

    def build_net(self) -> Any:
        """Return the transformer."""
        from workloads._video.video_net import Clips

        return Clips(self)

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Sequence[Any]:
        """Return clips with noise, time and text, or noise and text."""
        from workloads._video.video_data import samples

        return samples(self, phase, data=data, seed=seed)

    def loss(self, net: Any, batch: Any) -> Any:
        """Return the mean squared error of the velocity."""
        from workloads._video.video_net import loss

        return loss(net, batch)

    def optimizer(self, net: Any) -> Any:
        """Return AdamW."""
        from torch.optim import AdamW

        return AdamW((one for one in net.parameters() if one.requires_grad), lr=self.learning_rate)

    def infer(self, net: Any, batch: Any) -> Any:
        """Return clips made from noise: latents, or pixels with `decode`."""
        from workloads._video.video_net import make

        return make(self, net, batch)

    def items(self, phase: Phase, batch: Any) -> int:
        """Return clips."""
        return self.batch if batch is None else len(batch["noise"])

    def elements(self, phase: Phase, batch: Any) -> int:
        """Return latent tokens, each counted once however many steps it takes."""
        return self.items(phase, batch) * self.tokens

    def check_data(self, data: Path) -> None:
        """Read the header of each file, and the numbers of some."""
        from workloads._video.latent_files import check_latents

        check_latents(data, self)

    def data_used(self, phase: Phase, data: Path) -> UsedData:
        """Count the clips; one is used again with other noise, so that any number will do."""
        from workloads._video.latent_files import latent_files

        return UsedData(words=f"{len(latent_files(data))} clips, each with new noise in turn")

    def check(self, phase: Phase, output: Any) -> None:
        """Refuse a loss or a clip that is not finite."""
        if not bool(output.isfinite().all()):
            raise ValueError(f"{'loss' if phase.is_training else 'clip'} is not finite")
