"""All ranks of a program leave after the same step, each by a look into the trial's folder."""

from bench.wrap.common_end import CommonEnd


def test_all_ranks_leave_after_the_step_that_rank_0_names(tmp_path):
    first, second = CommonEnd(tmp_path), CommonEnd(tmp_path)
    for _ in range(3):
        first.count_step()
        second.count_step()
    assert not second.is_due(), "nothing is decided"
    first.decide(num_ranks=2)
    assert not first.is_due() and not second.is_due(), "one step more, which all take part in"
    first.decide(num_ranks=2)
    for rank in (first, second):
        rank.count_step()
        assert rank.is_due()
    late = CommonEnd(tmp_path)
    for _ in range(9):
        late.count_step()
    assert late.is_due(), "ranks that do not send in each step may be further"


def test_a_rank_alone_leaves_at_once_though_its_folder_is_gone(tmp_path):
    alone = CommonEnd(tmp_path / "gone")
    alone.count_step()
    assert not alone.is_due()
    alone.decide(num_ranks=1)
    assert alone.is_due()
