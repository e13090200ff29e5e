import itertools

import numpy as np
import pytest
import torch

from unseen.lab import Lab


def test_equal_paths_equal_streams_whatever_else_was_drawn():
    a = Lab(3).child("fit", 2).generator()
    Lab(3).child("data").generator()
    torch.rand(7)
    b = Lab(3).child("fit").child("2").generator()
    assert torch.equal(torch.rand(5, generator=a), torch.rand(5, generator=b))
    assert np.array_equal(Lab(3).child("x").numpy().random(4), Lab(3).child("x").numpy().random(4))


def test_paths_and_seeds_name_different_streams():
    labs = [
        Lab(s).child(*path)
        for s in range(20)
        for path in ([], ["a"], ["b"], ["a", "b"], ["ab"], ["a", 0])
    ]
    assert len({lab.entropy for lab in labs}) == len(labs)
    assert Lab(1).entropy != Lab(11).child().entropy
    assert Lab(1).child("1").entropy != Lab(11).entropy
    assert all(0 <= lab.entropy < 2**63 for lab in labs)


def test_streams_are_uncorrelated():
    drawn = np.stack([Lab(0).child(k).numpy().normal(size=4_000) for k in range(8)])
    drawn = np.concatenate(
        [drawn, [torch.randn(4_000, generator=Lab(0).child(0).generator()).numpy()]]
    )
    for i, j in itertools.combinations(range(9), 2):
        assert abs(np.corrcoef(drawn[i], drawn[j])[0, 1]) < 0.08  # five standard errors


def test_seeded_is_local():
    torch.manual_seed(9)
    wanted = torch.rand(2)
    torch.manual_seed(9)
    with Lab(1).child("init").seeded():
        a = torch.rand(3)
    assert torch.equal(torch.rand(2), wanted)
    with Lab(1).child("init").seeded():
        assert torch.equal(torch.rand(3), a)
    with pytest.raises(ZeroDivisionError), Lab(2).seeded():
        _ = 1 / 0
    torch.manual_seed(9)
    assert torch.equal(torch.rand(2), wanted)


def test_a_lab_alone_and_silent():
    lab = Lab()
    assert list(lab.track(range(3))) == [0, 1, 2]
    lab.log(loss=1.0)
    assert torch.equal(lab.sum(torch.ones(2)), torch.ones(2))
    made = []
    for _ in range(2):
        lab.keep("key", lambda: made.append(1) or {"a": torch.ones(1)})
    assert len(made) == 2  # nothing is kept without a keeper
    assert hash(lab) == hash(Lab())
