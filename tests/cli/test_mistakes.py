"""What a user types wrong, verb by verb: exit code 2 and one line that says what to do."""

import shlex
from pathlib import Path

import pytest

from tests.analysis.synthetic_rows import trials
from tests.analysis.test_projection_rows import ROOFS
from tests.cli.conftest import Ask, Write

WORDS = {
    "TIMED": str(Path(__file__).resolve().parents[1] / "workload_files" / "timed.py"),
    "TRAIN": "imaging-train --size tiny",
    "FAKE": "--workload sleep --device fake",
    "LONG": "x" * 5000 + ".py",
    "NINES": "9" * 30,
    "CSV": "run.csv",
}

MISTAKES = r"""
run => --workload is missing; `bench list` shows what there is
run -w imagin-train => did you mean 'imaging-train'?
run -w nosuch.py => does not exist
run -w TIMED:decode => timed.py 'decode' is not one of train, infer
run -w TIMED: => timed.py '' is not one of train, infer (or leave the colon out for both)
run -w llm: => '' is not one of train, prefill, decode, serve (or leave the colon out for all)
run -w imaging:trian => phase of imaging 'trian' is not one of train, infer; did you mean 'train'?
run -w imagin:train => workload 'imagin' is not one of
run -w 'C:\work\mine.py:train' => mine.py does not exist
run -w 'C:\work\mine.py' => mine.py does not exist
run -w ~nobodyhere/mine.py => cannot be looked up
run -w LONG => File name too long
run -w TIMED --dtype fp8 => --dtype 'fp8' is not one of fp32, tf32, bf16, fp16
run -w TIMED --size huge => --size 'huge' is not one of
run -w TIMED --size tiny => for timed
run -w TIMED --compile-mode max-autotune => max-autotune needs --compile
run -w TIMED --compile --compile-mode max-autotun => did you mean 'max-autotune'
run -w TIMED --compile --compile-mode reduce-overhead --devices 2 => is for one device alone
run -w TIMED --batch 0 => --batch 0 must be at least 1
run -w TIMED --batch two => --batch 'two' needs whole numbers
run -w TIMED --batch NINES => needs a whole number
run -w TIMED --set width => --set 'width' needs key=value
run -w TIMED --set widht=1 => did you mean 'width'?
run -w TIMED --set width=1.5 => parameter width needs a whole number, not '1.5'
run -w TIMED --set shape=1xtwo => parameter shape needs a whole number
run -w TIMED --set seconds=inf => needs a finite number
run -w TIMED --set seconds=-1 => seconds must be greater than 0
run -w TIMED --set is_wide=perhaps => needs true or false
run -w TIMED --budget 10 => --budget '10' needs a number with a unit
run -w TIMED --budget 0s => --budget must be more than nothing
run -w TIMED --timeout 1e300h => --timeout must be more than nothing and at most
run -w TIMED --trials 0 => --trials 0 must be from 1 to 10000
run -w TIMED --trials many => 'many' is not a valid int
run -w TIMED --seed -1 => --seed -1 must be from 0
run -w TIMED --threads 0 => --threads 0 must be from 1
run -w TIMED --profile fast => --profile 'fast' is not one of smoke, quick
run -w TIMED --data /no/such/place => --data /no/such/place does not exist
run -w sleep-train --data . => sleep-train takes no --data
run -w TIMED --frobnicate => No such option
run --resume '' => no such file, and no run of that id
run --resume '**' => no such file, and no run of that id
run --resume ~nobodyhere/run.csv => cannot be looked up
run -w TRAIN --devices 8 --link nvlink-9 => nvlink-9
run -w TRAIN --devices 2 --link mine.yaml => mine.yaml
run -w TRAIN --devices 8 --link bw=25GB/s,latency=5 => latency
run -w TRAIN --link 10gbe => need --devices
run -w TRAIN --devices 0 --link 10gbe => --devices 0 must be from 1
run -w TRAIN --devices 8 --tp 3 --link 10gbe => --devices 8 is not dp 2 x tp 3
run -w TRAIN --devices 8 --parallel fspd --link 10gbe => did you mean 'fsdp'?
run -w TRAIN --devices 8 --mode emulatd --link 10gbe => did you mean 'emulated'?
run -w TRAIN --devices 8 --mode emulated => --mode emulated needs a --link
run -w TRAIN --devices 8 --mode real --link 10gbe => leave --link out
run -w TRAIN --devices 64 --link h800-nvlink*8/ndr*4 => 32
run -w TRAIN --devices 512 --link h100-nvlink => such as --link h100-nvlink*8/ndr
run -w TRAIN --devices 8 --link h100-nvlink*3/ndr => ask for 6 or 9 of them, or for nodes of 8
run -w TRAIN --devices 2 --parallel pp => needs a --link
run -w TRAIN --devices 2 --pp 2 --mode emulated --link ndr => --mode simulated
run -w TRAIN --tp 2 --pp 2 --parallel tp --link ndr => does not go with --pp
run -w TRAIN --devices 2 --link ndr --bucket-mib 1e-7 => --bucket-mib
run -w TRAIN --devices 2 --link ndr --grad-accum 0 => --grad-accum 0
run -w TRAIN --devices 2 --link ndr --mitigate prayer => 'prayer' is not one of
run -w TRAIN --devices 2 --link ndr --contention much => --contention 'much'
run -w TRAIN --devices 2 --parallel tp --link ndr => imaging has no plan for tensor
run -w llm-train --size tiny --devices 3 --parallel tp --link ndr => by 3 devices; possible here
run -w llm-train --device cpu --devices 3 --parallel tp --link ndr => possible here: 2 or 4
run -w llm-train --device no-such --devices 7 --parallel tp --link ndr => possible here: 4 or 8
list workload => did you mean 'workloads'?
list workloads imagin => did you mean
list workloads imaging:trian => phase of imaging 'trian' is not one of train, infer
list workloads imaging-trian => did you mean 'imaging-train'?
list -w nosuch.py => does not exist
list --where tdp_w<300 => --where and --sort are for `bench list chips`
list chips H100 => chip 'H100' is ambiguous: h100-sxm-80g, h100-pcie-80g; name one of them
list chips 'A100 80GB' => is ambiguous: a100-sxm-80g, a100-pcie-80g, a100x; name one
list chips kunlun => is ambiguous: kunlun1-k200, kunlun2-r200, kunlun3-p800; name one
list chips l2 --where tdp_w<5 => NAME
list links h100-nvlink --check nowhere.csv => nowhere.csv
list links h100nvlink --check nowhere.csv => did you mean 'h100-nvlink'
list recipes limited-lnk => did you mean 'limited-link'
list links --check nowhere.csv => --check and --formula score one link
list links h100-nvlink --formula => --check and --formula score one link
export x.csv => --to is missing
export x.csv --to bfm => did you mean 'bmf'
export x.csv --to bmf --json => --json is the same as --to json
export x.csv --to parquet => --to 'parquet'
export x.csv --to github-action-benchmark => give -o FOLDER for both
export x.csv --to github-action-benchmark --direction up => bigger, smaller
export x.csv --to bmf --direction bigger => --direction is for
export x.csv --to bmf -o . => is a folder
export x.csv --to json => x.csv: cannot be read
report x.csv -o report.pdf => is not one of .html, .htm, .md
report x.csv -o report => is not one of .html, .htm, .md
report x.csv -o missing/report.html => there is no folder
report x.csv -o .html => is not one of .html, .htm, .md
report x.csv => x.csv: cannot be read
claims h20-core => did you mean 'h20-cores'?
claims 99 => a number from 1 to 44, or an article (F0, F1, F2, F3, F4)
claims --format yaml => --format 'yaml' is not one of table, markdown, json
claims missing.csv => missing.csv: cannot be read
claims 1 --run --budget 10 => --budget '10' needs a number with a unit
ab "FAKE" '--workload llm-train --device fake' => do not run the same workloads
ab 'FAKE --trials 3' "FAKE" => --trials cannot be part
ab '--workload nothing --device fake' "FAKE" => workload 'nothing'
ab "FAKE" "FAKE" --python-b /no/python => is not a program
ab '--workload sleep:trian --device fake' "FAKE" => phase of sleep 'trian' is not one of
ab "FAKE" "FAKE" --blocks 0 => --blocks 0 cannot decide: a verdict needs 3 blocks or more
ab "FAKE" "FAKE" --blocks 2 => --blocks 2 cannot decide: a verdict needs 3 blocks or more
ab "FAKE" "FAKE" --smoke --fail-on 5% => --smoke measures nothing
calibrate "FAKE" --blocks 1 => must be at least 2
measure-link --device cpu => a link needs two devices and here is one CPU
measure-link --device cpu --devices 1 => a link needs two devices
measure-link --ops all_reduse => did you mean 'all_reduce'?
measure-link --max-size 12 => needs a number with a unit
measure-link --max-size 1KB => --max-size must be from 1024 B
measure-link --out link.txt => must end in .yaml
measure-link --out /no/such/folder/link.yaml => there is no folder
data phantom OUT --shape 8x8 => --shape
data phantom OUT --shape tiny => --shape needs three sizes
data phantom OUT --shape 7x16x16 => --shape
data phantom OUT --cases 0 => --cases
data phantom OUT --seed -1 => --seed must not be negative
compare CSV CSV --metric speed => --metric 'speed' is not one of time
compare CSV CSV --format html => --format 'html' is not one of table
compare CSV CSV --fail-on 5 => such as 5%
compare CSV => two result files
compare CSV none.csv => none.csv
gap CSV --load 200 => such as 200/day
gap CSV --load imaging-infer:200 => such as 200/day
gap CSV --load imagine:200/day => 'imagine' (inference of the files given): there is none
gap CSV --load 200/day --load 5/h => name the workload of each
gap CSV --at p95 => give both
gap CSV --servers 2 => --servers are about the items of --load
gap CSV --load 200/day --servers 0 => --servers 0 is not between 1 and 4096 devices
gap CSV --load 200/day --at p95 => give --latency as well
gap CSV --load 200/day --latency 30s --at p0 => not a percentile from p1 to p99.9, such as p95
gap CSV --load 200/day --latency 30s --at 95 => not a percentile from p1 to p99.9, such as p95
gap CSV --load 200/day --busy-hour 101% => from 4.17% (an hour like all others) to 100%
gap CSV --load 200/day --busy-hour 4% => from 4.17% (an hour like all others) to 100%
gap CSV --load 200/day --busy-hour 0.12 => such as 12%
gap CSV --load 200/h --busy-hour 12% => is a part of a day: give --load '200/h' per day
gap CSV --load 200/day --latency 30s --urgent 100%:2s => between 0% and 100% with its time
gap CSV --load 200/day --latency 30s --urgent 5% => such as 5%:2min
gap CSV --load 200/day --latency 30s --urgent 5%:2 => needs a number with a unit
gap CSV --load 200/day --latency 30s --urgent 5%:2min => more time than --latency the rest
gap CSV --load 200/day --urgent 5%:2min => give --latency as well
gap CSV --latency 30s => give both
gap CSV --load 200/day --latency 30 => needs a number with a unit
gap CSV --load 200/day --latency 0s => must be over 0
gap CSV --items 0 => --items 0 is not a number over 0
gap CSV --epochs 3 => --epochs needs --items
gap CSV --items 5 --steps 5 => leave one out
gap CSV --within 7d => give --steps
gap CSV --steps 5 --within 7 => needs a number with a unit
gap CSV --format html => --format 'html' is not one of table
project CSV => say where to
project CSV --to , => --to needs chips
project CSV --to '910b, L4' => chip '910b' is ambiguous: ascend-910b1, ascend-910b2, ascend-910b3
project CSV --to h2000 => not in the catalogue
project CSV --to h20 --devices 0 => --devices 0
project CSV --to h20 --link ndr => give --devices
project CSV --to h20 --devices 111 => do not fill nodes of 8; ask for 104 or 112
project CSV --to h20 --devices 2 --link rope => rope
project CSV --to h20 --format xml => --format
project CSV --size-for soon => --size-for
project CSV --size-for 'llm-train < 3s' => the files hold
project CSV --size-for 'imaging-infer 1e99 patches/s' => '1e99' is not over 0 and under 1e30
project CSV --size-for 'imaging-infer < 3s' --devices 3 => leave --devices out
project CSV --size-for 'imaging-train 5 patches/s < 3s' => nobody waits for items of imaging-train
project CSV --size-for 'imaging-train 5 patches/s < 3' => needs a number with a unit
project CSV --size-for 'imaging-train 5 patches/s < 3s at 95' => not a percentile
project CSV --score => first line must be
project CSV --score --to h20 => no other choice
project CSV --score --steps 5 => no other choice
project none.csv --to h20 => cannot be read
project none.csv --score => cannot be read
"""

VERBS = dict.fromkeys(mistake.split()[0] for mistake in MISTAKES.strip().splitlines())


@pytest.mark.parametrize("verb", VERBS)
def test_a_mistake_ends_with_two_and_one_line(
    verb: str, tmp_path: Path, write: Write, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    (file,) = write(run=trials(num=3, **ROOFS))  # type: ignore[arg-type]
    for mistake in MISTAKES.strip().splitlines():
        line, _, reported = mistake.partition(" => ")
        for name, word in WORDS.items():
            line = line.replace(name, word)
        words = shlex.split(line)
        if words[0] != verb:
            continue
        if verb == "run" and not {"--device", "--resume"} & set(words):
            words += ["--device", "fake"]
        printed = ask(*words, code=2)
        *notes, said = printed.err.splitlines()
        assert said.startswith("bench: ") and reported in said, mistake
        assert not notes or verb == "ab", "only ab has run something before"
        assert printed.out == "", mistake
        assert list(tmp_path.glob("**/*.csv")) == [Path(file)], mistake
