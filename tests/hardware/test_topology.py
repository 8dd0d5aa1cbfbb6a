"""Links as users write them, each with one canonical name; and the presets, against the chips."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cli import main
from bench.core.errors import BenchError, DataError, UsageError
from bench.hardware.chips import chip
from bench.hardware.costs.collectives import Group
from bench.hardware.costs.cost import CostModel
from bench.hardware.links.curves import Point
from bench.hardware.links.presets import Link, link, load_links
from bench.hardware.links.topology import LinkFile, in_nodes, parse_topology, usual_node

IDS = [row.id for row in load_links()]
FILE = "bytes_per_s: 2.0e+9\nlatency_s: 3.0e-5\n"
POINT = "curve: [{{op: {op}, num_ranks: {ranks}, message_bytes: 1, latency_s: 1.0}}]\n"

parts = (
    st.floats(1e-3, 1e6).map("bw={!r}GB/s".format),
    st.floats(1e-3, 1e6).map(",latency={!r}us".format)
    | st.floats(1e-6, 1e3).map(",latency={!r}ms".format)
    | st.sampled_from([",latency=0", ",latency=0us", ",latency=0.0ms", ",latency=0s"]),
    st.sampled_from(["", ",algorithm=ring", ",algorithm=tree", ",algorithm=mesh", ",error=20%"]),
)
levels = st.sampled_from([*IDS, "infinite"]) | st.tuples(*parts).map("".join)
sizes = st.integers(1, 4096).map("*{}".format)
one_level = st.tuples(levels, st.just("") | sizes)
texts = st.one_of(
    one_level.map("".join),
    st.tuples(levels, sizes, one_level).map(lambda x: f"{x[0]}{x[1]}/{''.join(x[2])}"),
)


@given(texts)
def test_the_canonical_name_reads_back_to_the_same_topology(text: str) -> None:
    topology = parse_topology(text)
    again = parse_topology(topology.name)
    assert (again, again.name) == (topology, topology.name)


@given(st.just("") | texts, st.integers(0, 60), st.text(max_size=60))
def test_no_text_ends_in_anything_but_a_topology_or_one_line(
    text: str, place: int, other: str
) -> None:
    try:
        topology = parse_topology(text[:place] + other + text[place + 1 :])
    except BenchError as error:
        assert str(error)
    else:
        assert parse_topology(topology.name) == topology


def test_two_levels_know_nodes_and_capacity() -> None:
    topology = parse_topology("h800-nvlink*8/ndr*4")
    assert (topology.node_size, topology.max_devices) == (8, 32)
    assert parse_topology("h800-nvlink*8/ndr").max_devices is None
    assert parse_topology("h800-nvlink*8").node_size is None
    assert parse_topology("h800-nvlink*8").max_devices == 8
    assert CostModel(topology).group_of([0, 8, 16]) == Group(3, 3)
    assert CostModel(topology).group_of(range(8)) == Group(8, 1)
    # Bits and bytes are told apart.
    assert parse_topology("bw=200Gb/s,latency=5us") == parse_topology("bw=25GB/s,latency=5us")
    assert parse_topology("bw=200Gbps,latency=0.005ms").name == "bw=25GB/s,latency=5us"
    assert parse_topology("bw=0.2GB/s,latency=20ms").name == "bw=200MB/s,latency=20ms"


@given(st.sampled_from(load_links()), st.integers(1, 2**20))
def test_a_link_joins_its_domain_and_beyond_it_as_many_nodes_as_one_likes(
    row: Link, devices: int
) -> None:
    """A mesh joins one more than a device has links; a network is the only one without an end."""
    level, most = row.level(), row.largest_domain
    assert (most is None) == (row.topology in ("network", "wan"))
    if row.topology == "mesh":
        assert most == row.bytes_per_s / row.pair_bytes_per_s + 1
    if most is None or devices <= most:
        parse_topology(row.id).check_devices(devices)
        return
    with pytest.raises(UsageError):
        parse_topology(row.id).check_devices(devices)
    nodes = parse_topology(in_nodes(level))
    assert nodes.outer is not None and nodes.outer.largest_domain is None
    nodes.check_devices(devices * usual_node(level))


TOO_MANY = [
    ("h20-nvlink", 111, "joins at most 8 devices, not 111;.*h20-nvlink\\*8/ndr"),
    ("ascend910b-hccs", 172, "joins at most 8 devices, not 172;.*ascend910b-hccs\\*8/hdr"),
    ("ascend910-hccs", 8, "joins at most 4 devices, not 8;.*ascend910-hccs\\*4/100gbe"),
    ("h100-nvlink*16/ndr", 32, "joins at most 8 devices, not 16;"),
    ("h100-nvlink*12", 12, "joins at most 8 devices, not 12;"),
    ("ndr*8/h100-nvlink", 64, "between nodes, h100-nvlink joins at most 8"),
    ("h100-nvlink*8/ndr", 13, "do not fill nodes of 8; ask for 8 or 16 of them$"),
    ("h100-nvlink*2", 4, "holds 2 devices and 4 are asked"),
    ("h800-nvlink*8/ndr*4", 64, "holds 32 devices and 64"),
]
WRONG = [
    ("", "empty"),
    ("bw=25,latency=5us", "unit per second"),
    ("bw=25GB,latency=5us", "unit per second"),
    ("bw=25gb/s,latency=5us", "bits"),
    ("bw=25GB/s", "no latency"),
    ("latency=5us", "no bw"),
    ("bw=0GB/s,latency=5us", "above zero"),
    ("bw=25GB/s,latency=-5us", "latency of the link is '-5us'; it must be 0 or more"),
    ("bw=25GB/s,latency=-0", "unit"),
    ("bw=-1GB/s,latency=5us", "unit per second"),
    ("bw=25GB/s,latency=5us,speed=3", "speed=3"),
    ("bw=25GB/s,bw=25GB/s,latency=5us", "each once"),
    ("bw=25GB/s,latency=5us,algorithm=star", "ring, tree, mesh"),
    ("bw=25GB/s,latency=5us,error=-20%", "share"),
    ("h800-nvlink/ndr", "size of a node"),
    ("h800-nvlink*0/ndr", "1 to"),
    ("h800-nvlink*99999999999", "1 to"),
    ("h800-nvlink*8/ndr*4/hdr", "two levels"),
    ("nothing.yaml", "nothing.yaml.*No such file"),
]


@pytest.mark.parametrize(
    ("text", "devices", "words"), [*TOO_MANY, *((text, 2, words) for text, words in WRONG)]
)
def test_a_wrong_link_or_layout_is_one_line_that_says_what_to_write(
    text: str, devices: int, words: str
) -> None:
    with pytest.raises(BenchError, match=words) as raised:
        parse_topology(text).check_devices(devices)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("latency_s: 3.0e-5\n", "bytes_per_s: missing"),
        (FILE + "speed: 1\n", "unknown key 'speed'"),
        (FILE.replace("2.0e+9", "0"), "bytes_per_s: expected a number > 0.0"),
        (FILE.replace("3.0e", "-1.0e"), "latency_s: expected a number >= 0.0"),
        (FILE.replace("2.0e+9", "fast"), "bytes_per_s: expected a number"),
        (FILE + "curve: 7\n", "curve"),
        (FILE + "curve: [{op: all_reduce}]\n", "curve row 1: num_ranks: missing"),
        (FILE + POINT.format(op="fly", ranks=2), "curve row 1: op: 'fly' is not one of"),
        (FILE + POINT.format(op="send", ranks=1),
         "curve row 1: num_ranks: expected a whole number >= 2, found 1"),
        ("- 1\n", "expected a mapping"),
        ("a: [\n", "not readable as YAML"),
    ],
)  # fmt: skip
def test_a_damaged_link_file_is_named_with_its_field(
    content: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "link.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=f"link.yaml: {words}") as raised:
        parse_topology(str(path))
    assert "\n" not in str(raised.value)


def test_a_link_file_is_named_with_its_digest_and_brings_its_curve_with_it(tmp_path: Path) -> None:
    path = tmp_path / "link.yaml"
    path.write_text(FILE, encoding="utf-8")
    topology = parse_topology(str(path))
    assert parse_topology(topology.name) == topology
    assert parse_topology(f"{topology.name}*8/ndr").node_size == 8
    path.write_text(FILE.replace("2.0", "3.0"), encoding="utf-8")
    with pytest.raises(DataError, match="changed since"):
        parse_topology(topology.name)
    path = tmp_path / "measured.yaml"
    points = [
        Point(op="all_reduce", num_ranks=2, message_bytes=size, latency_s=size * 1e-9 + 1e-4)
        for size in (1024, 2048, 2**20)
    ]
    LinkFile(
        name="two ranks on a bench",
        bytes_per_s=1e9,
        latency_s=5e-5,
        curve=tuple(points),
        error_fraction=0.07,
        provenance={"command": "bench measure-link", "backend": "gloo"},
    ).write(path)
    model = CostModel(parse_topology(str(path)))
    cost = model.cost("all_reduce", num_bytes=2048, group=Group(2))
    assert (cost.method, cost.seconds) == ("curve", pytest.approx(2048e-9 + 1e-4))
    assert cost.high_s == pytest.approx(1.07 * cost.seconds)
    without = model.cost("broadcast", num_bytes=10**6, group=Group(2))
    assert (without.method, without.seconds) == ("alpha-beta", pytest.approx(1e-3 + 5e-5))


def test_a_latency_of_zero_is_all_rate_in_a_text_and_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "link.yaml"
    LinkFile(bytes_per_s=2e9, latency_s=0.0).write(path)
    for text in ("bw=2GB/s,latency=0", "bw=2GB/s,latency=0us", str(path)):
        topology = parse_topology(text)
        assert parse_topology(topology.name) == topology
        cost = CostModel(topology).cost("all_reduce", num_bytes=10**6, group=Group(4))
        assert cost.seconds == pytest.approx(2 * 3 / 4 * 1e6 / 2e9)
        assert CostModel(topology).cost("barrier", num_bytes=0, group=Group(4)).seconds == 0.0
    assert parse_topology("bw=2GB/s,latency=0").name == "bw=2GB/s,latency=0us"
    assert not topology.is_infinite


SAME_RATES = """
v100-nvlink:v100-sxm2-32g a100-nvlink:a100-sxm-80g a800-nvlink:a800-sxm-80g
h100-nvlink:h100-sxm-80g h800-nvlink:h800-sxm h200-nvlink:h200-sxm h20-nvlink:h20-96g
b200-nvlink:b200-sxm ascend910-hccs:ascend-910 ascend910b-hccs:ascend-910b3
"""


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
        assert row.pair_bytes_per_s <= row.bytes_per_s, row.id
        assert (row.largest_domain is None) == (row.network is None), row.id
        assert row.curve or not (row.curve_factor or row.curve_error_fraction), row.id
        assert (row.pair_bytes_per_s < row.bytes_per_s) == (row.topology == "mesh"), row.id
        if row.effective_bytes_per_s is not None:
            low = 0.01 if row.topology == "host" else 0.3  # what a host reaches is its own affair
            assert low * row.bytes_per_s < row.effective_bytes_per_s < row.bytes_per_s, row.id


def test_tables_cards_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "links"]) == 0
    printed = capsys.readouterr()
    line = next(x for x in printed.out.splitlines() if "ascend910-hccs" in x)
    assert line.split() == ["ascend910-hccs", "mesh", "4", "45", "15", "alpha-beta", "low"]
    assert "one direction" in printed.err
    assert main(["list", "links", "h800-nvlink"]) == 0
    out = capsys.readouterr().out
    assert "200 GB/s" in out and "215 GB/s" in out and "https://github.com/NVIDIA/nccl" in out
    assert main(["list", "links", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 25
    assert main(["list", "links", "wan-hub", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "wan-hub"
