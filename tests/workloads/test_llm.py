from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.core.errors import DataError
from tests.workloads.steps_of_workloads import generated_batch
from workloads._llm import llm_net as llama
from workloads._llm.llm_net import has_grouped_kernel
from workloads.llm import Workload

TRAIN, PREFILL, DECODE = Workload.phases
TINY = Workload(**Workload.sizes["tiny"])


def test_items_are_tokens_predicted_read_or_generated() -> None:
    for phase, tokens in [(TRAIN, 64), (PREFILL, 64), (DECODE, 8)]:
        assert TINY.items(phase, generated_batch(TINY, phase)[:3]) == 3 * tokens
        assert TINY.items(phase, None) == TINY.batch * tokens
    assert [phase.latency for phase in Workload.phases] == [None, "ttft", "tpot"]


def test_training_predicts_every_token_of_its_window_after_the_first() -> None:
    torch.manual_seed(0)
    net = TINY.build_net()
    batch = generated_batch(TINY, TRAIN)[:2]
    with torch.no_grad():
        loss = TINY.loss(net, batch)
        log_p = net(input_ids=batch).logits.log_softmax(-1)
    picked = [float(log_p[b, t, batch[b, t + 1]]) for b in range(2) for t in range(64)]
    assert float(loss) == pytest.approx(-sum(picked) / len(picked), rel=1e-5)


def test_a_token_is_not_seen_before_its_time() -> None:
    torch.manual_seed(0)
    net = TINY.build_net()
    ids = TINY.dataset(PREFILL, data=None, seed=0)[0][None]
    changed = ids.clone()
    changed[0, 40] = 7
    with torch.no_grad():
        before, after = (net(input_ids=x, use_cache=False).logits for x in (ids, changed))
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.allclose(before[:, 40:], after[:, 40:])


@pytest.mark.parametrize(
    ("dtype", "heads", "error_frac"),
    [(torch.float32, TINY.heads, 1e-5), (torch.bfloat16, TINY.kv_heads, 0.02)],
)
def test_heads_stay_grouped_only_where_a_kernel_takes_them_so(
    dtype: torch.dtype, heads: int, error_frac: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, bool]] = []
    is_grouped, product = has_grouped_kernel, nn.functional.scaled_dot_product_attention

    def note(query: Any, key: Any, value: Any, **flags: Any) -> Any:
        seen.append((value.shape[1], flags.get("enable_gqa", False)))
        return product(query, key, value, **flags)

    torch.manual_seed(0)
    net = TINY.build_net()
    ids = generated_batch(TINY, TRAIN)[:2]
    expected = TINY.loss(net, ids).item()
    monkeypatch.setattr(llama, "has_grouped_kernel", lambda value: is_grouped(value.to("meta")))
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", note)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = TINY.loss(net, ids)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=error_frac)
    assert seen == [(heads, dtype == torch.bfloat16)] * TINY.layers


def test_weight_decay_spares_the_norms() -> None:
    net = TINY.build_net()
    decayed, spared = TINY.optimizer(net).param_groups
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    assert len(spared["params"]) == 2 * TINY.layers + 1
    assert sum(p.numel() for g in (decayed, spared) for p in g["params"]) == TINY.num_parameters()


def test_a_text_must_fill_a_batch_with_different_windows(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("x" * (65 + TINY.batch - 1))
    TINY.check_data(path)
    assert len(TINY.dataset(TRAIN, data=path, seed=0)) == TINY.batch
    path.write_text("x" * (65 + TINY.batch - 2))
    with pytest.raises(DataError, match="needs 72 or more"):
        TINY.check_data(path)
