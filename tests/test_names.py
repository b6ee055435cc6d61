"""A misspelt name is answered with the nearest one, before all of them."""

import jax.random as jr
import pytest

import equistar as eqs
from equistar import tasks
from equistar._names import suggest
from equistar._recipes import TasksRecipe


def test_only_names_that_are_near_are_suggested():
    known = "digits_mlp", "quadratic"
    assert suggest("digit_mlp", known) == (
        "did you mean 'digits_mlp'? Otherwise choose one of ['digits_mlp', 'quadratic']"
    )
    assert suggest("x", known) == "choose one of ['digits_mlp', 'quadratic']"


@pytest.mark.parametrize(
    "look_up, meant",
    [
        (lambda: tasks.named("digit_mlp"), "digits_mlp"),
        (lambda: tasks.suite("ofline"), "offline"),
        (lambda: tasks.tfds_images("fashion-mnist"), "fashion_mnist"),
        (lambda: TasksRecipe(family=("quadratic",)).check(), "quadratics"),
        (lambda: eqs.load_pretrained("star_best"), "star-best"),
        (lambda: eqs.evaluate({}, ["digit_mlp"], key=jr.key(0)), "digits_mlp"),
    ],
)
def test_a_misspelt_name_gets_the_one_that_was_meant(look_up, meant):
    with pytest.raises(ValueError, match=f"did you mean '{meant}'"):
        look_up()
