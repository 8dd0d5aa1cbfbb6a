"""Link presets: complete, per direction, consistent with the catalogue."""

import json

import pytest

from bench.cli import main
from bench.core.errors import DataError, UsageError
from bench.hardware.chips import chip
from bench.hardware.links.presets import LinkPresets, link, load_links
from bench.hardware.loader import parse_document

PRESETS = (
    "v100-nvlink a100-nvlink a800-nvlink h100-nvlink h800-nvlink h200-nvlink h20-nvlink "
    "b200-nvlink mi250-if ascend910-hccs ascend910b-hccs pcie3 pcie4 pcie5 "
    "pcie3-cross-socket pcie4-cross-socket pcie5-cross-socket l40s-pcie hdr ndr 10gbe 25gbe "
    "100gbe wan-metro wan-hub"
)


def test_every_preset_of_the_command_line_exists() -> None:
    assert " ".join(row.id for row in load_links()) == PRESETS
    assert all(row.sources for row in load_links())


SAME_RATES = (
    "v100-nvlink:v100-sxm2-32g a100-nvlink:a100-sxm-80g a800-nvlink:a800-sxm-80g "
    "h100-nvlink:h100-sxm-80g h800-nvlink:h800-sxm h200-nvlink:h200-sxm h20-nvlink:h20-96g "
    "b200-nvlink:b200-sxm ascend910-hccs:ascend-910 ascend910b-hccs:ascend-910b3"
)


def test_a_preset_and_its_chip_state_the_same_rates() -> None:
    for pair in SAME_RATES.split():
        preset, id = pair.split(":")
        facts = chip(id).facts
        assert link(preset).bytes_per_s == facts["link_bytes_per_s"], pair
        assert link(preset).pair_bytes_per_s == facts["link_pair_bytes_per_s"], pair
    for preset, id in [("pcie3", "t4"), ("pcie4", "l4"), ("pcie5", "h100-pcie-80g")]:
        assert link(preset).bytes_per_s == chip(id).facts["host_bytes_per_s"]


def test_a_mesh_pair_has_one_link_and_nothing_reached_exceeds_what_is_specified() -> None:
    for row in load_links():
        assert (row.pair_bytes_per_s < row.bytes_per_s) == (row.topology == "mesh"), row.id
        if row.effective_bytes_per_s is not None:
            low = 0.01 if row.topology == "host" else 0.3  # what a host reaches is its own affair
            assert low * row.bytes_per_s < row.effective_bytes_per_s < row.bytes_per_s, row.id


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'h800-nvlink'"):
        link("h800nvlink")


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ("pair_bytes_per_s: 3.0", "pair_bytes_per_s: exceeds"),
        ("pair_bytes_per_s: 2.0, effective_bytes_per_s: 3.0", "effective_bytes_per_s: exceeds"),
        ("pair_bytes_per_s: 2.0, curve_factor: 2.0", "curve: missing"),
        ("x: 1", "unknown key 'x'"),
    ],
)
def test_an_impossible_preset_is_refused(extra: str, word: str) -> None:
    text = (
        "sources: {here: {title: A page}}\nlinks:\n- {id: one, name: One, topology: mesh, "
        f"algorithm: ring, bytes_per_s: 2.0, {extra}, confidence: low, sources: [here]}}\n"
    )
    with pytest.raises(DataError, match=f"one.*{word}"):
        parse_document(text, into=LinkPresets, what="links.yaml")


def test_tables_cards_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "links"]) == 0
    printed = capsys.readouterr()
    line = next(x for x in printed.out.splitlines() if "ascend910-hccs" in x)
    assert line.split() == ["ascend910-hccs", "mesh", "45", "15", "alpha-beta", "low"]
    assert "one direction" in printed.err
    assert main(["list", "links", "h800-nvlink"]) == 0
    out = capsys.readouterr().out
    assert "200 GB/s" in out and "215 GB/s" in out and "https://github.com/NVIDIA/nccl" in out
    assert main(["list", "links", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 25
    assert main(["list", "links", "wan-hub", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "wan-hub"
