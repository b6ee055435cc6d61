"""Parts of one's own: what they may give, and what is said of anything else."""

from typing import Any, ClassVar

import equinox as eqx
import jax.nn.initializers as jinit
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import equistar as eqs


class _Gradient(eqs.AbstractFeatures):
    def __call__(self, tensor):
        return eqs.Inputs((tensor.grad,))


def _giving(kind):
    """A part of a kind that gives whatever it is told to."""

    class Own(kind):
        give: Any = eqx.field(static=True)
        reads: ClassVar[tuple[str, ...]] = ("momentum",)

        def __call__(self, *args):
            return self.give(*args)

        def normalise(self, inputs):
            return jnp.zeros(0)

    Own.__name__ = f"Own{kind.__name__.removeprefix('Abstract')}"
    return Own


_GIVING = {
    cls.__name__: cls
    for cls in map(
        _giving,
        (
            eqs.AbstractDirection,
            eqs.AbstractMagnitude,
            eqs.AbstractPreconditioner,
            eqs.AbstractGain,
            eqs.AbstractNetwork,
            eqs.AbstractBlackboxTerm,
            eqs.AbstractNominalTerm,
            eqs.AbstractWeightDecay,
        ),
    )
}


def _with(name, give):
    part, key = _GIVING[name](give), jr.key(0)
    term: dict[str, Any] = {}
    match name:
        case "OwnDirection":
            term = {"nominal": eqs.NominalTerm(part)}
        case "OwnMagnitude":
            term = {"weight_decay": eqs.WeightDecay(0.1, part)}
        case "OwnPreconditioner":
            term = {"blackbox": eqs.BlackboxTerm(preconditioner=part, key=key)}
            term |= {"network": eqs.BlackboxMLP(1, key=key)}
            term |= {"features": _Gradient()}
        case "OwnGain":
            term = {"gain": part}
        case "OwnNetwork":
            term = {"network": part}
        case "OwnBlackboxTerm":
            term = {"blackbox": part}
        case "OwnNominalTerm":
            term = {"nominal": part}
        case "OwnWeightDecay":
            term = {"weight_decay": part}
    return eqs.LearnedOptimizer(**term)


def _update_of(optimizer):
    params = jnp.ones((2, 3))
    return optimizer.update(params, optimizer.init(params), params)[0]


@pytest.mark.parametrize("name", _GIVING)
@pytest.mark.parametrize(
    "found, said",
    [
        (None, "a NoneType"),
        (jnp.ones((2, 3), complex), r"shape \(2, 3\) and dtype complex128"),
        (1j, "a complex"),
        (jnp.ones((3, 2)), r"shape \(3, 2\) and dtype float64"),
        (jnp.ones((1, 2, 3)), r"shape \(1, 2, 3\) and dtype"),
        (lambda: 1.0, "a function"),
    ],
)
def test_what_a_part_may_not_give_is_refused_by_its_name(name, found, said):
    give = lambda *_: (found,) if name == "OwnNetwork" else found
    with pytest.raises(ValueError, match=f" {name} gave {said} .*: it must be real, and"):
        _update_of(_with(name, give))


@pytest.mark.parametrize(
    "name, give, message",
    [
        ("OwnDirection", lambda t: t.momentum, r"gave a tuple of 3 .* say `tensor.mom"),
        ("OwnGain", lambda t: jnp.ones((2, 3)), r"gave shape \(2, 3\) .* one number"),
        ("OwnGain", lambda t: jnp.ones(1), r"gave shape \(1,\) .* one number for the ten"),
        (
            "OwnNetwork",
            lambda *_: None,
            "gave a NoneType .* a tuple with an array",
        ),
        (
            "OwnNetwork",
            lambda *_: jnp.ones((4, 2, 3)),
            r"gave shape \(4, 2, 3\) .* tuple",
        ),
    ],
)
def test_what_a_kind_of_part_must_give_is_said(name, give, message):
    with pytest.raises(ValueError, match=f"{name} {message}"):
        _update_of(_with(name, give))


def test_parts_may_give_numbers_and_what_broadcasts():
    rows = lambda *_: jnp.array([[1.0], [2.0]])
    expected = np.array([[1.0] * 3, [2.0] * 3])
    for name in "OwnBlackboxTerm", "OwnNominalTerm", "OwnWeightDecay":
        np.testing.assert_array_equal(_update_of(_with(name, rows)), -expected)
    decayed = _update_of(_with("OwnMagnitude", rows))
    np.testing.assert_allclose(decayed, -0.1 * expected)
    for gain in (2, 2.0, np.float64(2), jnp.array(2.0)):
        optimizer = eqs.LearnedOptimizer(
            nominal=_GIVING["OwnNominalTerm"](rows),
            gain=_GIVING["OwnGain"](lambda t, gain=gain: gain),
        )
        np.testing.assert_array_equal(_update_of(optimizer), -2 * expected)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"scale": float("inf")}, "`scale` positive and finite; got .* and inf"),
        ({"scale": float("nan")}, "`scale` positive and finite"),
        ({"scale": "3"}, "`scale` must be one number, say 3.0.*; got '3'"),
        ({"start": ("a",) * 11}, "`start` must be finite numbers"),
        ({"start": (1j,) * 11}, "`start` must be finite numbers"),
        ({"start": "abc"}, "`start` must be finite numbers"),
        ({"start": (np.inf,) * 11}, "`start` must be finite numbers"),
    ],
)
def test_a_gain_of_what_are_no_finite_numbers_is_refused(settings, message, as_users_call):
    with pytest.raises(ValueError, match=message):
        eqs.TensorGain(**settings)


def test_a_summary_of_an_accumulator_that_a_part_does_not_declare_is_named():
    direction = _GIVING["OwnDirection"](lambda t: t.summaries["factored"] * t.grad)
    optimizer = eqs.LearnedOptimizer(nominal=eqs.NominalTerm(direction))
    with pytest.raises(ValueError, match=r"'factored', which is not .*\['momentum'\]"):
        _update_of(optimizer)


@pytest.mark.parametrize("init", [eqs.release_init, jinit.zeros, jinit.uniform()])
def test_a_head_begins_with_the_weights_of_a_vector(init):
    for width in (1, 4, 7):
        head = eqs.Head(width, init, key=jr.key(2))
        expected = init(jr.key(2), (width,), jnp.zeros(()).dtype)
        np.testing.assert_array_equal(head.weight, expected)


def test_initialisers_that_need_a_fan_in_are_those_of_a_column():
    head = eqs.Head(10_000, jinit.lecun_normal(), key=jr.key(0))
    # N(0, 1 / fan-in); the deviation of 10,000 is known to within 3 / sqrt(2 * 10,000).
    np.testing.assert_allclose(jnp.std(head.weight) * 100, 1, atol=0.021)
    for init in (jinit.glorot_uniform(), jinit.he_normal()):
        assert eqs.STAR(direction_init=init, key=jr.key(0)).blackbox.direction.weight.any()


def _raising(key, shape, dtype):
    raise RuntimeError("no weights today")


@pytest.mark.parametrize(
    "init, message",
    [
        (jinit.normal, r"raised TypeError.*say `jax.nn.initializers.normal\(\)`, with br"),
        (jinit.lecun_normal, "but it gave a function: pass an initialiser"),
        (_raising, r"`init\(key, \(4, 1\), dtype\)` .* raised RuntimeError\('no weights"),
        (lambda *_: jnp.ones(3), r"but it gave shape \(3,\) and dtype"),
        (lambda *_: jnp.ones(4, int), "so many floating-point numbers, but it gave shape"),
        (lambda *_: None, "but it gave a NoneType"),
    ],
)
def test_what_is_no_initialiser_is_named(init, message, as_users_call):
    with pytest.raises(ValueError, match=message):
        eqs.MagnitudeController(init=init, key=jr.key(0))


def test_an_initialiser_may_know_the_number_of_weights_alone():
    weights = jnp.arange(4.0)
    head = eqs.Head(4, lambda *_: weights, key=jr.key(0))
    np.testing.assert_array_equal(head.weight, weights)


class OwnScale(eqs.AbstractScale):
    give: Any = eqx.field(static=True)

    def __call__(self):
        return self.give()


@pytest.mark.parametrize(
    "give, said",
    [
        (lambda: None, "a NoneType"),
        (lambda: "1e-3", "a str"),
        (lambda: 1j, "a complex"),
        (lambda: jnp.ones(3), r"shape \(3,\) and dtype float64"),
    ],
)
@pytest.mark.parametrize("holder", ["nominal", "blackbox", "weight_decay", "magnitude"])
def test_a_scale_that_is_not_one_number_is_named(as_users_call, holder, give, said):
    scale, key = OwnScale(give), jr.key(0)
    network = {"features": _Gradient(), "network": eqs.BlackboxMLP(1, key=key)}
    terms: dict[str, dict[str, Any]] = {
        "nominal": {"nominal": eqs.NominalTerm(scale=scale)},
        "blackbox": {"blackbox": eqs.BlackboxTerm(scale=scale, key=key), **network},
        "weight_decay": {"weight_decay": eqs.WeightDecay(scale)},
        "magnitude": {
            "nominal": eqs.NominalTerm(
                magnitude=eqs.MagnitudeController(scale=scale, key=key)
            ),
            **network,
        },
    }
    optimizer = eqs.LearnedOptimizer(**terms[holder])
    with pytest.raises(ValueError, match=f"^The scale OwnScale gave {said}: it must be"):
        _update_of(optimizer)
