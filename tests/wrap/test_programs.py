"""Programs as their frameworks' documents write them, unchanged, and the row that each gives.

Each prints a line for an update, so that its steps are counted by itself as well. FLOPs are
compared with a count by hand, or by torch's own counter where a net has too many layers for one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.results.schema import Row
from tests.wrap.conftest import Wrap, Wrapped

OVER_LINK = ("--devices", "8", "--link", "10gbe")
INSTALL = {"lightning": "lightning", "accelerate": "accelerate", "ignite": "pytorch-ignite"}


def chain_flops(*widths: int, num_items: int = 1, first_needs_gradient: bool = False) -> int:
    """FLOPs of training linear layers: forward, gradients of weights, gradients of inputs."""
    layers = [2 * wide * narrow * num_items for wide, narrow in pairwise(widths)]
    return 3 * sum(layers) - (0 if first_needs_gradient else layers[0])


def gan_flops(critic_steps: int) -> int:
    """FLOPs of a step of gan.py, of 32 examples each time."""
    critic = chain_flops(16, 32, 1, num_items=32)
    generator_forward = 2 * 32 * (8 * 32 + 32 * 16)
    each = 2 * critic + generator_forward
    judged = chain_flops(16, 32, 1, num_items=32, first_needs_gradient=True)
    generator_backward = chain_flops(8, 32, 16, num_items=32) - generator_forward
    return critic_steps * each + judged + generator_backward


def unet_flops() -> float:
    from monai.losses import DiceLoss
    from monai.networks.nets import UNet

    net = UNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8, 16), strides=(2, 2))
    with FlopCounterMode(display=False) as counter:
        loss: Any = DiceLoss(to_onehot_y=True, softmax=True)
        loss(net(torch.rand(8, 1, 32, 32)), torch.ones(8, 1, 32, 32)).backward()
    return counter.get_total_flops() / 8


def llama_flops() -> float:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 128}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    net: Any = LlamaForCausalLM(LlamaConfig(**sizes, **heads, attn_implementation="eager"))
    ids = torch.zeros(4, 24, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        net(input_ids=ids, labels=ids).loss.backward()
    return counter.get_total_flops() / 4


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program, and what its row must say."""

    words: list[str]
    flags: tuple[str, ...] = ()
    needs: str = ""
    batch: int | None = None
    """Items of a step of one rank."""
    flops_per_item: Callable[[], float] | float | None = None
    is_distributed: bool = False
    is_apart: bool = False
    """Whether some steps hold more than the others, which the row then says."""
    num_before: int = 1
    """Its updates until the first end of a step."""
    columns: Row = field(default_factory=dict)
    sent_bytes: int | None = None
    """What a rank of several sends in a step; None where it is not known by hand."""


MLP = chain_flops(32, 64, 8)
MLP_BYTES = 4 * (32 * 64 + 64 + 64 * 8 + 8)
"""Of its gradients."""
CRITIC_BYTES, GENERATOR_BYTES = 4 * (16 * 32 + 32 + 32 + 1), 4 * (8 * 32 + 32 + 32 * 16 + 16)
FOUND_BYTES = 8 * 16 * 8
"""Of what all ranks found for their batch."""
PROGRAMS = {
    "ddp": Program(
        words=["ddp.py"],
        batch=16,
        flops_per_item=chain_flops(64, 256, 2),
        is_distributed=True,
        columns={"optimizer": "SGD", "num_parameters": 17154},
        sent_bytes=4 * 17154,
    ),
    "fsdp2": Program(
        words=["fsdp2.py"],
        flops_per_item=32 * (3 * 3 * 2 * (2 * 64 * 256) + chain_flops(64, 8) + 2 * 64 * 8),
        is_distributed=True,
        columns={"optimizer": "Adam"},
    ),
    "hf_trainer": Program(
        words=["hf_trainer.py", "40"],
        needs="accelerate",
        batch=8,
        flops_per_item=llama_flops,
        is_distributed=True,
        is_apart=True,
        columns={"optimizer": "AdamW", "grad_accum": 2},
    ),
    "lightning_unet": Program(
        words=["lightning_unet.py"],
        needs="lightning",
        batch=8,
        flops_per_item=unet_flops,
        is_distributed=True,
        is_apart=True,
        columns={"optimizer": "Adam"},
    ),
    "accelerated": Program(
        words=["accelerated.py"],
        needs="accelerate",
        batch=32,
        flops_per_item=chain_flops(32, 64, 1),
        is_distributed=True,
        columns={"optimizer": "AdamW", "grad_accum": 4},
    ),
    "gan": Program(
        words=["gan.py"],
        batch=32,
        flops_per_item=gan_flops(1) / 32,
        is_distributed=True,
        num_before=2,
        columns={"optimizer": "Adam+RMSprop"},
        sent_bytes=3 * CRITIC_BYTES + GENERATOR_BYTES,
    ),
    "two_optimizers": Program(
        words=["two_optimizers.py"],
        flops_per_item=16 * MLP,
        is_distributed=True,
        num_before=2,
        columns={"optimizer": "Muon+AdamW"},
        sent_bytes=MLP_BYTES,
    ),
    "accumulation": Program(
        words=["accumulation.py"],
        batch=64,
        flops_per_item=chain_flops(32, 64, 1),
        is_distributed=True,
        columns={"optimizer": "SGD", "grad_accum": 4, "dtype": "bf16"},
        sent_bytes=4 * (32 * 64 + 64 + 64 + 1),
    ),
    "scaled": Program(
        words=["scaled.py"],
        flops_per_item=16 * MLP,
        columns={"optimizer": "SGD", "dtype": "fp16"},
    ),
    "in_backward": Program(
        words=["in_backward.py"],
        flops_per_item=16 * MLP,
        num_before=2,
        columns={"optimizer": "Adam", "num_parameters": 2632},
    ),
    "compiled": Program(
        words=["compiled.py"],
        flops_per_item=16 * MLP,
        is_distributed=True,
        columns={"optimizer": "AdamW", "compile": True},
        sent_bytes=MLP_BYTES,
    ),
    "evaluates": Program(
        words=["evaluates.py", "--eval-interval", "3"],
        flops_per_item=16 * MLP,
        is_distributed=True,
        is_apart=True,
        columns={"optimizer": "AdamW", "num_parameters": 2632},
        sent_bytes=MLP_BYTES,
    ),
    "second_loader": Program(
        words=["evaluates.py", "--second-loader"],
        batch=16,
        flops_per_item=MLP,
        is_distributed=True,
        is_apart=True,
        sent_bytes=MLP_BYTES,
    ),
    "loader": Program(
        words=["inference.py"],
        flags=("--step", "loader"),
        batch=16,
        flops_per_item=2 * (32 * 64 + 64 * 8),
        is_distributed=True,
        sent_bytes=FOUND_BYTES,
    ),
    "marked": Program(
        words=["inference.py", "--marked"],
        flags=("--step", "mark"),
        batch=16,
        flops_per_item=2 * (32 * 64 + 64 * 8),
        is_distributed=True,
        sent_bytes=FOUND_BYTES,
    ),
    "compiled_forward": Program(
        words=["inference.py", "--compiled"],
        flags=("--step", "forward"),
        batch=16,
        flops_per_item=2 * (32 * 64 + 64 * 8),
        is_distributed=True,
        sent_bytes=FOUND_BYTES,
        columns={"compile": True},
    ),
    "zero": Program(
        words=["zero.py", "2"],
        needs="deepspeed",
        flops_per_item=16 * MLP,
        is_distributed=True,
        columns={"optimizer": "AdamW", "num_parameters": None},
    ),
}


def need(module: str) -> None:
    if module and find_spec(module) is None:
        pytest.skip(f"pip install {INSTALL.get(module, module)}")


def check(ran: Wrapped, program: Program) -> Row:
    assert ran.code == 0, ran.output
    (row,) = ran.rows
    found = {name: row[name] for name in program.columns}
    assert found == program.columns
    assert row["batch"] == program.batch
    flops = program.flops_per_item
    assert row["flops_per_item"] == pytest.approx(flops() if callable(flops) else flops)
    assert ("steps_apart" in str(row["reasons"])) == program.is_apart, row["detail"]
    return row


def num_updates(program: Program, row: Row) -> int:
    """Lines that it printed: of the look and of the trial, each ended at its last update."""
    look = program.num_before + 4 - 1
    steps, warmup = row["steps"], row["warmup_steps"]
    assert isinstance(steps, int) and isinstance(warmup, int)
    return look + program.num_before + warmup + steps - 1


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_gives_its_row(wrap: Wrap, name: str) -> None:
    program = PROGRAMS[name]
    need(program.needs)
    start = ["torchrun", "--nproc-per-node", "1"] if name in ("ddp", "fsdp2") else ["python"]
    ran = wrap(*program.flags, command=[*start, *program.words])
    row = check(ran, program)
    if not program.is_apart and not program.flags and name != "scaled":
        assert ran.output.count("update\n") == num_updates(program, row)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PROGRAMS if PROGRAMS[name].is_distributed])
def test_a_program_is_one_of_eight_over_a_link(wrap: Wrap, name: str) -> None:
    program = PROGRAMS[name]
    need(program.needs)
    ran = wrap(*OVER_LINK, *program.flags, command=["python", *program.words])
    row = check(ran, program)
    assert (row["device_count"], row["link"]) == (8, "10gbe")
    assert row["mode"] in ("emulated", "simulated"), "by how long its collectives are"
    items, steps, sent_bytes = (int(str(row[one])) for one in ("items", "steps", "comm_bytes"))
    assert items == 8 * steps * (program.batch or 1)
    assert sent_bytes > 0 and sent_bytes == (program.sent_bytes or sent_bytes)
    if row["mode"] == "simulated":  # nothing of what is apart is in it
        window_s = steps * float(str(row["step_mean_ms"])) / 1e3
        assert row["window_s"] == pytest.approx(window_s)
    if program.sent_bytes and not program.is_apart and not program.flags:
        assert ran.output.count("update\n") == num_updates(program, row)


def test_a_discriminators_five_updates_are_one_step(wrap: Wrap) -> None:
    ran = wrap(command=["python", "gan.py", "--critic-steps", "5"])
    columns: Row = {"optimizer": "Adam+RMSprop", "grad_accum": None}
    five = Program(words=[], batch=160, flops_per_item=gan_flops(5) / 160, columns=columns)
    row = check(ran, five)
    assert ran.output.count("update\n") == num_updates(Program(words=[], num_before=2), row)
    assert "160 samples, the first dimension of batch[0]" in ran.output


def test_an_evaluation_and_a_checkpoint_stay_out_of_the_steps(wrap: Wrap) -> None:
    program = Program(words=[], flops_per_item=16 * MLP, is_apart=True)
    row = check(wrap(command=["python", "evaluates.py", "--eval-interval", "3"]), program)
    words = r"(\d+) of \d+ steps .*: a checkpoint and an evaluation \(\1, [\d.e-]+ s\)"
    assert re.search(words, str(row["detail"]))


def test_an_outermost_forward_ends_a_step(wrap: Wrap) -> None:
    columns: Row = {"num_parameters": 2632}
    forward = 2 * (32 * 64 + 64 * 8)
    program = Program(words=[], batch=16, flops_per_item=forward, columns=columns)
    check(wrap("--step", "forward", command=["python", "inference.py"]), program)


@pytest.mark.slow
def test_each_token_of_generate_is_a_step(wrap: Wrap) -> None:
    ran = wrap("--step", "forward", command=["python", "generates.py"])
    assert ran.code == 0, ran.output
    assert ran.rows[0]["num_parameters"] == 98624


@pytest.mark.slow
@pytest.mark.parametrize("way", ["torch", "safetensors", "distributed", "pretrained"])
def test_every_way_to_save_is_a_checkpoint(wrap: Wrap, way: str) -> None:
    ran = wrap(command=["python", "saves.py", way])
    assert ran.code == 0, ran.output
    assert ": a checkpoint (" in str(ran.rows[0]["detail"])


BUNDLE = """
imports: [$import monai, $import torch, $import torch.distributed as dist]
device: $torch.device('cpu')
network_def:
  _target_: UNet
  spatial_dims: 2
  in_channels: 1
  out_channels: 2
  channels: [4, 8, 16]
  strides: [2, 2]
network: $@network_def.to(@device)
loss: {_target_: DiceLoss, to_onehot_y: true, softmax: true}
optimizer: {_target_: torch.optim.Adam, params: $@network.parameters(), lr: 0.001}
train:
  dataset:
    _target_: Dataset
    data: "$[{'image': torch.rand(1, 32, 32), 'label': torch.ones(1, 32, 32)} for _ in range(64)]"
  dataloader: {_target_: DataLoader, dataset: '@train#dataset', batch_size: 8}
  trainer:
    _target_: SupervisedTrainer
    max_epochs: 20
    device: '@device'
    train_data_loader: '@train#dataloader'
    network: '@network'
    loss_function: '@loss'
    optimizer: '@optimizer'
    inferer: {_target_: SimpleInferer}
initialize: [$monai.utils.set_determinism(seed=0)]
run: [$@train#trainer.run()]
"""


SEVERAL = """
network:
  _target_: torch.nn.parallel.DistributedDataParallel
  module: $@network_def.to(@device)
initialize:
  - $dist.init_process_group('gloo')
  - $monai.utils.set_determinism(seed=0)
finalize: [$dist.destroy_process_group()]
"""
"""Over the first, as the bundles of MONAI's model zoo have it for several devices."""


def bundle(folder: Path, *, files: str) -> list[str]:
    """Return the command that runs a bundle in this folder."""
    need("ignite")
    need("fire")
    configs = folder / "configs"
    configs.mkdir()
    (configs / "train.yaml").write_text(BUNDLE, encoding="utf-8")
    (configs / "several.yaml").write_text(SEVERAL, encoding="utf-8")
    (configs / "metadata.json").write_text('{"version": "0.1.0"}', encoding="utf-8")
    command = ["python", "-m", "monai.bundle", "run", "--config_file", files]
    return [*command, "--meta_file", "configs/metadata.json", "--bundle_root", "."]


BUNDLED = Program(words=[], batch=8, flops_per_item=unet_flops, columns={"optimizer": "Adam"})


@pytest.mark.slow
def test_a_bundle_is_run_by_monai(wrap: Wrap, tmp_path: Path) -> None:
    command = bundle(tmp_path, files="configs/train.yaml")
    row = check(wrap(command=command), BUNDLED)
    changed = BUNDLE.replace("0.001", "0.01")
    (tmp_path / "configs" / "train.yaml").write_text(changed, encoding="utf-8")
    assert check(wrap(command=command), BUNDLED)["workload_version"] != row["workload_version"]


@pytest.mark.slow
def test_a_bundle_is_one_of_eight_over_a_link(wrap: Wrap, tmp_path: Path) -> None:
    command = bundle(tmp_path, files="['configs/train.yaml','configs/several.yaml']")
    row = check(wrap(*OVER_LINK, command=command), BUNDLED)
    assert (row["device_count"], row["link"]) == (8, "10gbe")
