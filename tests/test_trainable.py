"""Which part of an optimizer is meta-trained."""

import jax.random as jr
import jax.tree_util as jtu
import pytest

import equistar as eqs


STAR = eqs.STAR(key=jr.key(0))


def test_a_part_and_everything_else_are_complements():
    part = lambda s: (s.nominal, s.accumulators)
    others, these = eqs.all_but(STAR, part), eqs.only(STAR, part)
    assert not any(jtu.tree_leaves(part(others)))
    count = lambda spec: sum(jtu.tree_leaves(spec))
    # A head of five numbers and seven decays in four banks are two and four arrays.
    assert count(these) == len(jtu.tree_leaves(part(STAR)))
    assert count(others) + count(these) == len(jtu.tree_leaves(STAR))


@pytest.mark.parametrize(
    "part, message",
    [
        (lambda s: s.nope, r"finds nothing in STAR \(.*nope.*\): it has .*nominal, "),
        (lambda s: s.gain, "Nothing is left to train"),
    ],
)
def test_a_part_that_is_not_there_or_not_learned_is_refused(part, message):
    with pytest.raises(ValueError, match=message):
        eqs.only(STAR, part)


def test_nothing_is_left_of_everything():
    with pytest.raises(ValueError, match="Nothing is left to train"):
        eqs.all_but(STAR, lambda s: s)
