"""Folders of tiled slides as `bench run --data` takes them, or refuses them in one line."""

import zlib
from pathlib import Path

from tests.cli.conftest import Ask
from tests.workloads.test_pathology import write_slides


def bomb() -> bytes:
    """A PNG of 30,000 pixels a side by its head, as Pillow refuses to decompress."""
    head = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + bytes([0, 0, 0, 13]) + head + zlib.crc32(head).to_bytes(4, "big")


def test_a_folder_of_slides_runs_and_what_is_wrong_in_it_is_one_line(
    ask: Ask, tmp_path: Path
) -> None:
    folder = write_slides(tmp_path / "slides", count=4, seed=3)
    run = ("run", "--workload", "pathology", "--size", "tiny", "--device", "fake", "--dry-run")
    plan = ask(*run, "--data", folder).out
    assert "slides held out, 1 of 4, at most 64 tiles" in plan
    assert "slides to train on, 3 of 4, bags of 4 tiles" in plan
    labels, text = folder / "labels.csv", (folder / "labels.csv").read_text()

    def refused(*words: str) -> str:
        return ask(*run, "--data", folder, *words, code=2).one_line

    assert "generated features, without --data" in refused("--set", "train_encoder=false")
    for written, said in (
        (
            "slide,label\ns0,1",
            "labels.csv has no column slide_id: its first line is 'slide,label'; it has to be",
        ),
        ("slide_id,label\ns0,a\ns1,b\ns2,c", "3 labels (a, b, c), this net 2 classes; --set"),
        ("slide_id,label\ns0,a\ns9,b", "s9 is no folder, though labels.csv names the slide s9"),
        ("slide_id,label\ns0,a\ns0,b", "line 3: names slide 's0' twice"),
        ("slide_id,label\ns0,a\ns1,", "line 3: names slide 's1' without a label"),
        ("slide_id,label\n../x,a", "line 2: names slide '../x' by a path"),
        ("slide_id,label\n..,a", "line 2: names slide '..' by a path"),
        ("slide_id,label\n.,a", "line 2: names slide '.' by a path"),
        (f"slide_id,label\ns0,a\ns1,b\ns2,{'1' * 5000}", "has 3 labels (a, b, 1111"),
        ("slide_id,label\ns0,a", "names one slide; two or more"),
        ("slide_id,label\ns0,a\ns1,a", "has one label alone: nothing can be learned"),
        ("slide_id,label\n", "names no slide"),
    ):
        labels.write_text(written)
        assert said in refused()
    labels.write_text("slide_id,label\ns0,a\ns1,a")  # is inferred all the same
    ask("run", "-w", "pathology:infer", *run[3:], "--data", folder)
    labels.write_text(text)
    (folder / "s0" / "._0.jpg").write_bytes(b"of another system")
    (folder / "s0" / "a.jpg").mkdir()
    ask(*run, "--data", folder)
    for name in ("3.png", "0.jpg"):  # what is read last, and first
        broken = folder / "s0" / name
        whole = broken.read_bytes()
        for content in (whole[:-200], whole[:300], bomb()):
            broken.write_bytes(content)
            assert f"{broken} cannot be read as a picture" in refused()
        broken.write_bytes(whole)
    for tile in (folder / "s1").iterdir():
        tile.unlink()
    broken.unlink()
    assert "s1 has no tiles: .jpg, .jpeg, .png, .bmp, .webp" in refused()
    labels.unlink()
    assert "labels.csv does not exist; it has a line slide_id,label" in refused()
    assert "is no folder" in ask(*run, "--data", folder / "s0" / "1.png", code=2).one_line
