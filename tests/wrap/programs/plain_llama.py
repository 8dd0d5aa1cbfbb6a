"""A Llama trained as one does it without a harness, to set beside `bench run -w llm-train`.

Net, batches, optimizer and clipping are those of `workloads/llm.py` at tiny.
"""

import itertools

import torch
from torch.utils.data import DataLoader

from workloads._llm.llm_cost import LlamaShape
from workloads._llm.llm_net import build, causal_loss
from workloads._llm.text import MarkovWindows

SHAPE = LlamaShape(
    batch=8, layers=2, hidden=64, heads=4, kv_heads=2, intermediate=176, vocab=256,
    sequence_tokens=64, prompt_tokens=64, new_tokens=8,
)  # fmt: skip


def main() -> None:
    torch.manual_seed(0)
    net = build(SHAPE).train()
    matrices = {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 0.1}
    norms = {"params": [p for p in net.parameters() if p.ndim == 1], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([matrices, norms], lr=3e-3, betas=(0.9, 0.95))
    windows = MarkovWindows(length=SHAPE.sequence_tokens + 1, seed=0)
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(
        windows, batch_size=SHAPE.batch, shuffle=True, drop_last=True, generator=generator
    )
    for ids in itertools.chain.from_iterable(itertools.repeat(loader)):
        optimizer.zero_grad()
        loss = causal_loss(net, ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()


if __name__ == "__main__":
    main()
