"""The model of DNA: its published size, its generated genome, FASTA and VCF files, and bad ones."""

import gzip
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.core.errors import DataError
from tests.workloads.steps_of_workloads import generated_batch
from workloads._genomics import generated_genome as genome
from workloads._genomics.kmers import MASK, NOT_PREDICTED, neighbours
from workloads.genomics import Workload

TRAIN, SCORE = Workload.phases
TINY = Workload(**Workload.sizes["tiny"])
SMALL = replace(TINY, batch=2, window_tokens=4)
"""Windows of eight bases."""


def test_the_default_is_the_published_net_less_its_contact_head() -> None:
    # huggingface.co/InstaDeepAI/nucleotide-transformer-500m-human-ref and -2.5b-1000g; the head
    # has a weight for each head of each layer, and a bias.
    base, large = (Workload(**Workload.sizes[size]) for size in ("base", "large"))
    assert base.num_parameters() == 480_444_906 - (24 * 20 + 1)
    assert large.num_parameters() == 2_537_292_426 - (32 * 20 + 1)
    # ESM-2, 650 M (huggingface.co/facebook/esm2_t33_650M_UR50D), tied and rotary
    protein = Workload(layers=33, kmer=1, vocab=33, is_rotary=True)
    assert protein.num_parameters() == 651_043_254 - (33 * 20 + 1)


def test_a_sample_is_made_of_seed_and_index_and_masks_the_stated_share() -> None:
    for phase in (TRAIN, SCORE):
        one, again, other = (TINY.dataset(phase, data=None, seed=seed) for seed in (3, 3, 4))
        copies = [one[5], again[5], pickle.loads(pickle.dumps(one))[5]]
        key = "ids" if phase == TRAIN else "reference"
        for name in copies[0]:
            assert all(torch.equal(copies[0][name], copy[name]) for copy in copies)
        assert not torch.equal(one[5][key], one[6][key])
        assert not torch.equal(one[5][key], other[5][key])
    batch = generated_batch(replace(TINY, batch=400), TRAIN)
    chosen = batch["targets"] != NOT_PREDICTED
    assert (chosen.sum(dim=1) == 10).all(), "15 % of 64"
    seen, true = batch["ids"][chosen], batch["targets"][chosen]
    assert (seen == MASK).float().mean() == pytest.approx(0.8, abs=0.02)
    # One in ten is replaced by any of 16 k-mers, one of which is the same.
    assert (seen == true).float().mean() == pytest.approx(0.1 + 0.1 / 16, abs=0.02)
    assert (batch["ids"][~chosen] != MASK).all()


def test_variants_change_one_base_and_break_the_chain_or_keep_it() -> None:
    batch = generated_batch(replace(TINY, batch=20), SCORE)
    assert batch["is_breaking"].tolist() == [False, True] * 10
    assert ((batch["reference"] != batch["alternative"]).sum(dim=1) == 1).all()
    for row, position in enumerate(batch["position"].tolist()):
        states, changed = (batch[name][row] - 4 for name in ("reference", "alternative"))
        assert int(changed[position]) in neighbours(int(states[position]), kmer=2)
        change = sum(
            sign * float(genome.transitions(int(a), kmer=2)[0][int(b)])
            for sign, chain in ((1, changed), (-1, states))
            for a, b in zip(chain[:-1], chain[1:], strict=True)
        )
        assert change < -6 if batch["is_breaking"][row] else abs(change) < 1


def test_a_k_mer_has_three_neighbours_a_base() -> None:
    assert sorted(neighbours(0, kmer=2)) == [1, 2, 3, 4, 8, 12]
    assert len(set(neighbours(777, kmer=6))) == 18


def test_a_score_is_the_gain_of_likelihood_at_the_changed_token() -> None:
    torch.manual_seed(0)
    net, batch = TINY.build_net().eval(), generated_batch(replace(TINY, batch=3), SCORE)
    with torch.inference_mode():
        scores = TINY.score(net, batch)
        for row, position in enumerate(batch["position"].tolist()):
            gain = 0.0
            for sign, name in ((1, "alternative"), (-1, "reference")):
                ids = batch[name][row]
                logits = net(input_ids=ids[None]).logits[0, position]
                gain += sign * float(logits.log_softmax(-1)[ids[position]])
            assert float(scores[row]) == pytest.approx(gain, abs=1e-4)


def test_casting_leaves_the_rotary_frequencies_as_they_were() -> None:
    net: Any = TINY.build_net()
    before = net.esm.rotary_embeddings.inv_freq.clone()
    cast = net.to(torch.bfloat16).esm.rotary_embeddings.inv_freq
    assert cast.dtype == torch.float32 and torch.equal(before, cast)


FASTA = ">one first contig\nACGTACGTnn\nACGTACGTAC\n>two\nACGTACG\n"
VCF = """##fileformat=VCFv4.2
#CHROM\tPOS\tID\tREF\tALT
one\t1\t.\tA\tC
one\t12\t.\tC\tT,G
one\t9\t.\tN\tA
one\t3\t.\tGT\tG
three\t3\t.\tG\tC
two\t3\t.\tG\tC
"""


def files(folder: Path, *, fasta: str = FASTA, vcf: str | None = VCF) -> Path:
    path = folder / "genome.fa"
    path.write_text(fasta)
    if vcf is not None:
        path.with_suffix(".vcf").write_text(vcf)
    return path


def test_windows_of_a_fasta_file_leave_unknown_bases_out(tmp_path: Path) -> None:
    path = files(tmp_path)
    SMALL.check_data(path)
    zipped = tmp_path / "zipped.fa.gz"
    ends = FASTA.lower().replace("\n", "\r")
    zipped.write_bytes(gzip.compress(ends.encode()))
    windows = SMALL.dataset(TRAIN, data=path, seed=0)
    # The first contig's windows of eight bases at every base, but for those with an n.
    assert len(windows) == 1 + 3
    same = SMALL.dataset(TRAIN, data=zipped, seed=0)
    for mine, other in zip(windows, same, strict=True):
        assert torch.equal(mine["ids"], other["ids"])
        assert (mine["targets"] != NOT_PREDICTED).sum() == 1
    kinds = {tuple(np.where(w["targets"] >= 0, w["targets"], w["ids"]).tolist()) for w in windows}
    assert (4 + 1, 4 + 11, 4 + 1, 4 + 11) in kinds, "AC GT AC GT"


def test_variants_of_a_vcf_are_in_the_middle_of_their_window(tmp_path: Path) -> None:
    path = files(tmp_path)
    SMALL.check_data(path)
    pairs = SMALL.dataset(SCORE, data=path, seed=1)
    found = {(int(p["position"]), int(p["reference"][p["position"]]),
              int(p["alternative"][p["position"]])) for p in pairs}  # fmt: skip
    # A to C in the contig's first AC; C to T and to G in the third token of GT nn AC GT.
    assert found == {(0, 4 + 1, 4 + 5), (2, 4 + 1, 4 + 3), (2, 4 + 1, 4 + 2)}
    assert any(0 in pair["reference"] for pair in pairs), "nn is an unknown token"
    windows, variants = (SMALL.data_used(phase, path) for phase in (TRAIN, SCORE))
    assert (windows.words, windows.num_samples) == ("4 windows of 8 known bases", 4)
    assert variants.num_samples == 3
    assert variants.words == (
        "3 changes of one base; left out: 2 not of one base; left out: 1 on a contig that the "
        "FASTA lacks; left out: 1 on a contig shorter than 8 bases"
    )


BAD = {
    "is empty": ("", VCF),
    "does not begin with '>'": ("ACGT\n", VCF),
    "has the contig one twice": (FASTA + ">one\nACGT\n", VCF),
    "contig one has 'E' as base 2, which is no base": (">one\nAEGT\n", VCF),
    "has no window of 8 known bases; give longer contigs, or": (">one\nACGTACG\n", VCF),
    "genome.vcf line 1 is no record": (FASTA, "one 1 . A C\n"),
    "one has A at 1 but REF is G: the VCF is of another genome": (FASTA, "one\t1\t.\tG\tC\n"),
    "genome.vcf line 1: one has 20 bases, not 21": (FASTA, "one\t21\t.\tG\tC\n"),
    "genome.vcf line 1 is no record: ": (FASTA, f"one\t{'1' * 5000}\t.\tA\tC\n"),
}


@pytest.mark.parametrize("problem", BAD)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, problem: str) -> None:
    fasta, vcf = BAD[problem]
    path = files(tmp_path, fasta=fasta, vcf=vcf)
    with pytest.raises(DataError) as caught:
        SMALL.check_data(path)
    assert problem in str(caught.value) and str(path.with_suffix("")) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_or_lacks_variants_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; give --data a FASTA file"):
        SMALL.check_data(tmp_path)
    broken = tmp_path / "genome.fa.gz"
    broken.write_bytes(gzip.compress(FASTA.encode())[:-9])
    with pytest.raises(DataError, match=r"genome\.fa\.gz cannot be read"):
        SMALL.check_data(broken)
    broken.unlink()
    path = files(tmp_path, vcf=None)
    SMALL.check_data(path)  # training needs none
    path.with_suffix(".vcf").mkdir()
    SMALL.check_data(path)
    path.with_suffix(".vcf").rmdir()
    with pytest.raises(DataError, match="has no VCF beside it, which score needs: genome.vcf"):
        SMALL.data_used(SCORE, path)
    assert SMALL.data_used(SCORE, files(tmp_path, vcf="#\n")).num_samples == 0
