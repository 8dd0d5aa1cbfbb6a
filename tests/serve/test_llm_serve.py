"""`llm-serve` as typed: on the fake device its rows and refusals, and its trials on the CPU."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from bench.core.nouns import Layout, Serving
from bench.measure.messages import Messages, TrialResult
from bench.results.beside_rows import read_samples
from bench.results.reader import read_rows
from bench.results.store import samples_path
from bench.serve.live.language_engine import unequal
from bench.serve.served_trial import run_request
from tests.cli.conftest import Ask, all_here, ask  # noqa: F401  (fixtures)
from tests.measure.trial_requests import request_of

RUN = ("run", "--workload", "llm-serve", "--size", "tiny", "--device", "fake")
COMING = ("--arrivals", "poisson:20/s", "--seconds", "20")
LIMITS = ("--slo", "ttft=2s@p99,tpot=200ms@p99")


def test_a_row_has_tokens_their_lengths_and_what_a_user_gets(
    ask: Ask,  # noqa: F811
    tmp_path: Path,
) -> None:
    lengths = ("--prompt-tokens", "fixed:64")
    answer = ask(*RUN, *COMING, *LIMITS, *lengths, "--out", tmp_path)
    (path,) = tmp_path.glob("*.csv")
    (row,) = read_rows(path)
    assert (row["scenario"], row["attainment_frac"], row["items_unit"]) == ("open_loop", 1, "token")
    assert row["tokens_sent_mean"] == 64 and row["tokens_got_mean"] == row["tokens_asked_mean"]
    assert 200 < float(str(row["tokens_got_mean"])) < 400
    assert row["ttft_p50_ms"] and row["tpot_p50_ms"]
    params = json.loads(str(row["params_json"]))
    assert params["request_prompt_tokens"] == "fixed:64"
    assert params["request_output_tokens"] == "lognormal:256:0.5"
    assert (params["max_batch_tokens"], params["max_requests"], params["cuda_graph"]) == (
        *(2048, 64),
        False,
    )
    assert row["max_batch"] is None and "per user" in answer.out


def test_a_trace_brings_its_own_lengths(ask: Ask, tmp_path: Path) -> None:  # noqa: F811
    trace = tmp_path / "trace.jsonl"
    line = '{"timestamp": %d, "input_length": 30, "output_length": 7}\n'
    trace.write_text("".join(line % (50 * place) for place in range(100)))
    ask(*RUN, "--arrivals", f"trace:{trace}", "--out", tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.csv")
    (row,) = read_rows(path)
    assert (row["requests"], row["tokens_sent_mean"], row["tokens_got_mean"]) == (100, 30, 7)
    assert json.loads(str(row["params_json"]))["request_prompt_tokens"] == "trace:"


def test_the_rate_that_holds_is_a_bracket_of_two_that_were_tried(
    ask: Ask,  # noqa: F811
    tmp_path: Path,
) -> None:
    limits = ("--slo", "ttft=1s@p95,latency=2s@p95")
    searched = ("--arrivals", "auto", "--seconds", "8", "--think", "5s", *limits)
    asked = (*RUN, *searched, "--out", tmp_path)
    assert "carries" in ask(*asked).out
    (path,) = tmp_path.glob("*.csv")
    (row,) = read_rows(path)
    low, high = (float(str(row[f"capacity_{end}_per_s"])) for end in ("low", "high"))
    assert row["capacity_is"] == "confirmed" and 200 < low < high < 2 * low
    # What held is no run whose queue grew: its latencies stand.
    assert row["lat_p50_ms"] and float(str(row["attainment_frac"])) >= 0.95
    assert "short_run" not in str(row["reasons"]) and "holds" in str(row["detail"])
    assert 5 * low < float(str(row["users"])) < 7 * low, "each thinks, and waits for its answer"
    # Of the rates that were tried it is that one's tokens and window, and no other's.
    tokens_per_s = float(str(row["achieved_per_s"])) * float(str(row["tokens_got_mean"]))
    assert row["decode_tok_per_s"] == pytest.approx(tokens_per_s)
    (sample,) = read_samples(samples_path(path))
    window_s = float(str(sample["window_end_s"])) - float(str(sample["window_start_s"]))
    assert window_s == pytest.approx(8 * float(str(row["utilisation_frac"])), rel=0.05)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "requests of tokens come by themselves: give --arrivals"),
        (("--arrivals", "auto"), "needs what has to hold"),
        ((*COMING, "--max-batch", "4"), "--max-batch: the engine batches tokens as they come"),
        ((*COMING, "--compile"), "--compile: the engine"),
        ((*COMING, "--prompt-tokens", "64"), "--prompt-tokens '64' is not fixed:N"),
        ((*COMING, "--output-tokens", "trace:"), "needs --arrivals trace:FILE"),
        ((*COMING, "--devices", "2", "--parallel", "ddp"), "by --parallel tp over a --link"),
        (
            (*COMING, "--tp", "2", "--link", "h800-nvlink"),
            "is emulated, and not simulated (on h800",
        ),
        ((*COMING, "-w", "llm-decode"), "give their phase alone"),
        ((*COMING, "-w", "imaging-infer", *LIMITS), "give their phase alone"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    ask: Ask,  # noqa: F811
    flags: tuple[str, ...],
    words: str,
) -> None:
    assert words in ask(*RUN, *flags, code=2).one_line


def test_lengths_are_for_requests_of_tokens(ask: Ask) -> None:  # noqa: F811
    asked = ("run", "--workload", "imaging-infer", "--device", "fake", *COMING)
    assert "--think is about requests of tokens" in ask(*asked, "--think", "5s", code=2).one_line
    refused = ask(*asked, "--output-tokens", "fixed:4", code=2).one_line
    assert "--output-tokens is about requests of tokens: --workload llm-serve has them" in refused


def test_all_phases_of_a_model_do_without_the_one_that_is_served(ask: Ask) -> None:  # noqa: F811
    planned = ask("run", "--workload", "llm", "--device", "fake", "--dry-run").out
    assert "llm-decode" in planned and "llm-serve" not in planned


# On the CPU ---------------------------------------------------------------------------------------


def trial_of(*, seconds: float, **fields: Any) -> TrialResult:
    serving = Serving(
        arrivals="uniform:30/s",
        given="uniform:30/s",
        slo="ttft=30s@p90,tpot=10s@p90",
        prompt_tokens="lognormal:30:0.5",
        output_tokens="fixed:6",
        seconds=seconds,
    )
    sent: list[Any] = []
    messages = Messages()
    messages.send = sent.append  # type: ignore[method-assign]
    run_request(request_of("llm-serve", data="generated", serving=serving, **fields), messages)
    (result,) = (one for one in sent if isinstance(one, TrialResult))
    return result


def test_a_trial_on_the_cpu_serves_all_and_its_answers_are_right() -> None:
    result = trial_of(seconds=1.0)
    row = result.row
    # A busy machine sends late, and its times rise by chance; what is answered is another matter.
    assert set(result.reasons) - {"client_late", "overloaded"} == {"smoke"}, result.detail
    assert (row["requests"], row["errors"]) == (30, 0)
    assert row["attainment_frac"] == 1.0 and str(row["engine"]).startswith("transformers-cb ")
    if "overloaded" not in result.reasons:
        assert row["tokens_got_mean"] == 6 and row["tpot_p50_ms"] and row["ttft_p50_ms"]
    assert float(str(row["decode_tok_per_s"])) > 30 and row["max_batch"] == 64
    assert row["check_error_frac"] == 0.0 and "utilisation_frac" not in row
    assert "comm_ops" not in row, "no link"


def test_a_trial_over_a_link_waits_for_it_with_every_token() -> None:
    link = Layout(strategy="tp", tensor=2, link="wan-metro", mode="emulated")
    try:
        row = trial_of(seconds=0.2, layout=link).row
    finally:
        dist.destroy_process_group()
    hops_ms = 2.0 * 2  # two all-reduces in each of two layers, of a millisecond or more
    assert float(str(row["tpot_p50_ms"])) > hops_ms and row["errors"] == 0
    # Of one pass, whatever was warmed up and checked before, and however many there were.
    # Two all-reduces in each layer, that of the embedding and the gathering of the logits.
    assert row["comm_ops"] == 6 and row["overlap"] and row["link_method"]
    total_ms = float(str(row["comm_total_ms"]))
    assert hops_ms < total_ms and float(str(row["comm_low_ms"])) < total_ms
    assert total_ms < float(str(row["comm_high_ms"])) < 2 * total_ms
    token_bytes = 4 * (5 * 64 + 256)  # of five states and the logits at tiny
    tokens = float(str(row["comm_bytes"])) / token_bytes
    assert 1 <= tokens < 100, "a token of each request under way, and at times a prompt"


def test_answers_that_were_mixed_up_are_wrong() -> None:
    own = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    mixed = [own[1], own[2], own[0]]
    assert unequal(own, own, is_half=False) is None
    assert unequal([[1, 2, 9], *own[1:]], own, is_half=True) is None
    for is_half in (False, True):
        found = unequal(mixed, own, is_half=is_half)
        assert found is not None and found[0] == "wrong_output" and "3 of 3" in found[1]
    assert unequal([[1, 2, 9], *own[1:]], own, is_half=False) is not None
