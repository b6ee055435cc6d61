"""Good optimizers pass the kit, and one broken on purpose fails each property."""

import pathlib
import re
import subprocess
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest
from hypothesis import given, settings

import equistar as eqs
import equistar.testing as kit

from .helpers import on_devices, randomised


# Once trained, STAR moves at a zero gradient: its network has biases, and without
# gradients its preconditioner is at its largest, 1,000 times the step's scale of 1e-3.
test_star = kit.optimizer_tests(
    randomised(eqs.STAR(key=jr.key(0)), jr.key(1), 0.1), kit.RestsAtZeroGradient(0.2)
)
test_hyperparam = kit.optimizer_tests(eqs.HyperparamController(key=jr.key(0)))
# Optax keeps Adam's moments in the parameters' dtype. Its step is at most the learning
# rate times (1 - b1) / sqrt(1 - b2), whatever the gradients, and at most 1 at first.
test_adam = kit.optimizer_tests(
    optax.adam(0.1), kit.BoundedUpdate(0.1 * 3.17), skip=(kit.WideAccumulators,)
)
# Stable up to 2 (1 + momentum) / learning rate = 38.
test_sgd = kit.optimizer_tests(
    optax.sgd(0.1, momentum=0.9),
    kit.StableOnQuadratics(37.0, steps=1000),
    skip=(kit.WideAccumulators,),
)


@pytest.mark.slow
def test_blackbox():
    blackbox = randomised(eqs.Blackbox(key=jr.key(0)), jr.key(1), 0.1)
    rest = kit.RestsAtZeroGradient(2e-4)
    kit.check(blackbox, [p for p in kit.EXPECTED if type(p) is not type(rest)] + [rest])


def test_an_untrained_star_rests_at_a_zero_gradient():
    kit.check(eqs.STAR(key=jr.key(0)), [kit.RestsAtZeroGradient()])


class _Descent(eqs.AbstractOptimizer):
    """Gradient descent, to be broken by the classes below."""

    def init(self, params):
        return {"count": jnp.zeros((), jnp.int32)}

    def update(self, grads, state, params, **extra):
        return jtu.tree_map(lambda g: -0.1 * g, grads), state


def _broken(init=None, update=None):
    good = _Descent()

    class Broken(eqs.AbstractOptimizer):
        def init(self, params):
            return good.init(params) if init is None else init(params)

        def update(self, grads, state, params, **extra):
            if update is None:
                return good.update(grads, state, params)[0], state
            return update(grads, state, params)

    return Broken()


def _traced(tree):
    tracer = jax.core.Tracer  # pyright: ignore
    return any(isinstance(x, tracer) for x in jtu.tree_leaves(tree))


def _map(function):
    return lambda g, s, p: (jtu.tree_map(function, g), s)


def _by_name(g, s, p):
    first = next(x for x in jtu.tree_leaves(g))
    return jtu.tree_map(lambda x: -0.1 * x - 0.01 * jnp.sum(first), g), s


def _eager_only(g, s, p):
    factor = 0.1 if _traced(g) else 0.2
    return jtu.tree_map(lambda x: -factor * x, g), s


def _leaks_nan(g, s, p):
    total = sum(jnp.sum(x) for x in jtu.tree_leaves(g))
    return jtu.tree_map(lambda x: -0.1 * x + 0 * total, g), s


def _leaks_nan_of_scalars(g, s, p):
    total = sum(jnp.sum(x) for x in jtu.tree_leaves(g) if x.ndim == 0)
    return jtu.tree_map(lambda x: -0.1 * x + 0 * total, g), s


def _newton_of_each_coordinate(g, s, p):
    """Exact where the Hessian is diagonal."""
    safe = jnp.where(p == 0, 1.0, p)
    return -g / jnp.maximum(jnp.abs(jnp.where(p == 0, 1.0, g / safe)), 1e-6), s


class _HastyAfterARise(eqs.AbstractOptimizer):
    """Gradient descent, ten times as fast where the gradient grew: it shrinks, but for
    noise."""

    def init(self, params):
        return jnp.full((), jnp.inf, jnp.float32)

    def update(self, grads, state, params, **extra):
        size = jnp.sum(grads**2)
        return jnp.where(size > 1.01 * state, -1.0, -0.1) * grads, size


class _NaNLater(eqs.AbstractOptimizer):
    """Its update is NaN from the tenth on; the state counts them."""

    def init(self, params):
        return jnp.zeros((), jnp.int32)

    def update(self, grads, state, params, **extra):
        late = jnp.where(state >= 9, jnp.nan, -0.1)
        return jtu.tree_map(lambda g: (late * g).astype(g.dtype), grads), state + 1


BROKEN = {
    "KeepsStructure": (
        kit.KeepsStructure(),
        _broken(update=_map(lambda g: (-0.1 * g).astype(jnp.float32))),
    ),
    "KeepsStructure, many axes": (
        kit.KeepsStructure(),
        _broken(update=_map(lambda g: g.astype(jnp.float32) if g.ndim == 4 else g)),
    ),
    "StaysFinite": (kit.StaysFinite(), _broken(update=_map(lambda g: g / (g * g)))),
    "StaysFinite, many axes": (
        kit.StaysFinite(),
        _broken(update=_map(lambda g: g * jnp.inf if g.ndim == 4 else g)),
    ),
    "StaysFinite, bfloat16": (
        kit.StaysFinite(),
        _broken(update=_map(lambda g: g * jnp.inf if g.dtype == jnp.bfloat16 else g)),
    ),
    "StaysFinite, later on": (kit.StaysFinite(), _NaNLater()),
    "WideAccumulators": (
        kit.WideAccumulators(),
        _broken(init=lambda p: jtu.tree_map(jnp.zeros_like, p)),
    ),
    "RestsAtZeroGradient": (
        kit.RestsAtZeroGradient(1e-3),
        _broken(update=_map(lambda g: 0.01 - 0.1 * g)),
    ),
    "RestsAtZeroGradient, many axes": (
        kit.RestsAtZeroGradient(),
        _broken(update=_map(lambda g: -g - 0.01 if g.ndim > 2 else -g)),
    ),
    "BoundedUpdate": (kit.BoundedUpdate(1.0), _Descent()),
    # Its bound of 0.317 is that of a spike after many updates.
    "BoundedUpdate, a late spike": (
        kit.BoundedUpdate(0.12, steps=300),
        eqs.OptaxOptimizer(optax.adam, learning_rate=0.1),
    ),
    "IgnoresLeafOrder": (kit.IgnoresLeafOrder(), _broken(update=_by_name)),
    "JitEqualsEager": (kit.JitEqualsEager(), _broken(update=_eager_only)),
    "NaNStaysInItsLeaf": (kit.NaNStaysInItsLeaf(), _broken(update=_leaks_nan)),
    "NaNStaysInItsLeaf, scalars": (
        kit.NaNStaysInItsLeaf(),
        _broken(update=_leaks_nan_of_scalars),
    ),
    "StableOnQuadratics": (kit.StableOnQuadratics(25.0), _Descent()),
    "StableOnQuadratics, coupled": (
        kit.StableOnQuadratics(19.0),
        _broken(update=_newton_of_each_coordinate),
    ),
    "StableOnQuadratics, noise": (kit.StableOnQuadratics(19.0), _HastyAfterARise()),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_optimizer_broken_on_purpose_fails_its_property_in_a_few_words(name):
    prop, optimizer = BROKEN[name]
    with pytest.raises(AssertionError) as caught:
        prop(optimizer)
    message = str(caught.value)
    assert message.startswith(name.split(",")[0])
    assert len(message) < 300


def test_quadratics_shrink_to_a_diagonal_hessian_without_noise():
    with pytest.raises(AssertionError, match=r"size 0\.0") as caught:
        kit.StableOnQuadratics(25.0)(_Descent())
    numbers = re.findall(r"-?\d+\.\d*", str(caught.value).split("=")[1])
    hessian = np.array(numbers, float).reshape(3, 3)
    np.testing.assert_array_equal(hessian, np.diag(np.diag(hessian)))


def test_an_unbroken_optimizer_passes_them_all():
    promises = kit.BoundedUpdate(1e20), kit.StableOnQuadratics(19.9)
    kit.check(_Descent(), (*kit.EXPECTED, *promises))


def test_a_safeguarded_optimizer_keeps_all_but_what_its_criterion_couples():
    sgd = lambda rate: eqs.OptaxOptimizer(optax.sgd, learning_rate=rate)
    safe = eqs.Safeguarded(sgd(1.0), sgd(0.2), eqs.StepBound(3.0))
    # The criterion reads all leaves: a NaN in one makes all fall back.
    coupled = kit.NaNStaysInItsLeaf()
    loose = eqs.Safeguarded(sgd(1.0), sgd(0.2), eqs.StepBound(6.0))
    with pytest.raises(AssertionError, match="NaNStaysInItsLeaf"):
        coupled(loose)
    # The learned step is five times as long and never taken: the fallback's margin, 10.
    rest = [p for p in kit.EXPECTED if type(p) is not type(coupled)]
    kit.check(safe, [*rest, kit.StableOnQuadratics(9.9)])


def test_an_optimizer_that_mixes_batches_fails_under_vmap():
    # Its mean under vmap is one over the whole batch.
    class Summing(eqs.AbstractOptimizer):
        def init(self, params):
            return jnp.zeros(())

        def update(self, grads, state, params, **extra):
            whole = jax.custom_batching.custom_vmap(lambda x: jnp.mean(x))

            @whole.def_vmap
            def _(axis_size, in_batched, x):
                return jnp.broadcast_to(jnp.mean(x), (axis_size,)), True

            return {
                n: None if g is None else -g * (1 + whole(grads["w"]))
                for n, g in grads.items()
            }, state

    with pytest.raises(AssertionError, match="VmapEqualsLoop"):
        kit.VmapEqualsLoop()(Summing())


def test_the_update_that_is_not_finite_is_counted():
    with pytest.raises(AssertionError, match="StaysFinite: update 10 of "):
        kit.StaysFinite()(_NaNLater())


def test_no_updates_at_all_are_another_structure():
    nothing = _broken(update=lambda g, s, p: (None, s))
    for prop in (kit.NaNStaysInItsLeaf(), kit.IgnoresLeafOrder()):
        with pytest.raises(AssertionError, match="KeepsStructure: updates change"):
            kit.check(nothing, [prop])


# One rounding in float32 is one in bfloat16 where it is stored so.
def test_momenta_in_bfloat16_pass_all_but_one():
    star = eqs.STAR(key=jr.key(0))
    bank = {name: eqs.InBFloat16(a) for name, a in star.accumulators.items()}
    narrow = eqx.tree_at(lambda o: o.accumulators, star, bank)
    wide = kit.WideAccumulators
    kit.check(narrow, [p for p in kit.EXPECTED if not isinstance(p, wide)])
    with pytest.raises(AssertionError, match="is bfloat16"):
        kit.check(narrow, [wide()])


def test_what_an_optimizer_raises_is_told_with_the_property():
    class Branching(eqs.AbstractOptimizer):
        def init(self, params):
            return jnp.zeros(())

        def update(self, grads, state, params, **extra):
            return (grads if state > 0 else params), state

    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        kit.check(Branching())
    assert "while KeepsStructure was tried" in caught.value.__notes__[-1]


def _named(name):
    return type(name, (kit.KeepsStructure,), {})()


def test_the_tests_have_the_names_of_their_properties_in_small_letters():
    names = "NoOp", "KeepsL2Norm", "StaysAtRest", "StableOnQuadratics"
    ours: Any = kit.optimizer_tests(_Descent(), *map(_named, names))
    assert ours.pytestmark[0].kwargs["ids"] == [
        "keeps_structure",
        "stays_finite",
        "wide_accumulators",
        "rests_at_zero_gradient",
        "ignores_leaf_order",
        "jit_equals_eager",
        "vmap_equals_loop",
        "sharded_equals_unsharded",
        "nan_stays_in_its_leaf",
        "no_op",
        "keeps_l2_norm",
        "stays_at_rest",
        "stable_on_quadratics",
    ]


# As a caller without a type checker has it.
untyped: Any = kit


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: untyped.check(_Descent(), [untyped.KeepsStructure]),
            r"`KeepsStructure\(\)`",
        ),
        (lambda: untyped.check(_Descent(), untyped.KeepsStructure()), "must be a list"),
        (
            lambda: untyped.optimizer_tests(optax.adam),
            "`optimizer` must be one of this lib",
        ),
        (lambda: untyped.check(1e-3), "`optimizer` must be one of this library"),
        (lambda: untyped.optimizer_tests(_Descent(), untyped.BoundedUpdate), "is a class"),
        (
            lambda: untyped.optimizer_tests(_Descent(), skip=[untyped.WideAccumulators()]),
            r"without parentheses; got \[WideAccumulators\(\)\]",
        ),
        (
            lambda: untyped.optimizer_tests(_Descent(), skip=["wide_accumulators"]),
            r"list of classes.*got \['wide_accumulators'\]",
        ),
    ],
)
def test_what_is_no_property_is_named(as_users_call, call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_failure_is_shrunk_to_a_readable_example():
    with pytest.raises(AssertionError) as caught:
        kit.BoundedUpdate(1.0)(_Descent())
    notes = "\n".join(getattr(caught.value, "__notes__", []))
    # A spike at the first step of plain gradients is all that it takes.
    assert "Gradients(seed=0, exponent=0, spike=0, zeros=False, nan=-1)" in notes


def test_sharded_equals_unsharded_on_four_devices_and_a_mean_of_each_shard_does_not():
    done = subprocess.run(
        [sys.executable, pathlib.Path(__file__).parent / "sharded_kit.py"],
        env=on_devices(4),
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr
    assert "broken one fails" in done.stdout


@settings(max_examples=50)
@given(kit.spectra(4), kit.spd_matrices(3), kit.symmetric_matrices(3, low=-2.0, high=0.5))
def test_drawn_matrices_are_what_they_are_called(spectrum, spd, symmetric):
    assert np.all(np.diff(spectrum) >= 0) and 1e-3 <= spectrum[0] <= spectrum[-1] <= 1001
    assert 0 < np.linalg.eigvalsh(spd)[0] <= np.linalg.eigvalsh(spd)[-1] <= 1001
    np.testing.assert_array_equal(spd, spd.T)
    np.testing.assert_array_equal(symmetric, symmetric.T)
    values = np.linalg.eigvalsh(symmetric)
    assert -2 - 1e-9 <= values[0] and values[-1] <= 0.5 + 1e-9


@settings(max_examples=50)
@given(kit.disturbed_matrices(4, bound=3.0))
def test_drawn_disturbances_commute_with_their_matrices(drawn):
    d, p = drawn
    assert np.all(0 < d) and np.all(d <= 3)
    np.testing.assert_allclose(d[:, None] * p, p * d[None], atol=1e-12)


@settings(max_examples=50)
@given(kit.parameter_trees(), kit.gradient_sequences(nan_leaves=2))
def test_drawn_trees_and_gradients_fit_each_other(params, gradients):
    grads = gradients.build(params, 5)
    assert jtu.tree_structure(grads) == jtu.tree_structure(params)
    for g, p in zip(jtu.tree_leaves(grads), jtu.tree_leaves(params), strict=True):
        assert g.shape == (5, *p.shape) and g.dtype == p.dtype
        if gradients.zeros:
            assert not np.any(np.asarray(g[1::2], np.float32))
    # A leaf that the tree does not have leaves it without NaN.
    filled = [g for g in jtu.tree_leaves(grads) if g.size > 0]
    broken = [bool(jnp.any(jnp.isnan(g))) for g in filled]
    assert broken == [i == gradients.nan for i in range(len(filled))]


def test_the_kit_is_not_imported_with_the_library():
    code = "import equistar, sys; assert 'hypothesis' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_hypothesis_is_said():
    code = "import sys; sys.modules['hypothesis'] = None; import equistar.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'equistar[tests]'" in done.stderr


@pytest.mark.parametrize("make", [optax.polyak_sgd, optax.lbfgs])
def test_optimizers_that_ask_for_a_loss_are_given_a_linear_one(make):
    kit.check(make(), [kit.KeepsStructure(), kit.RestsAtZeroGradient()])


def test_a_polyak_step_has_invariances():
    polyak = eqs.OptaxOptimizer(optax.polyak_sgd)
    found = eqs.analysis.invariances(polyak, trials=3, key=jr.key(0))
    assert found.descent_rate == 1 and found.translation < 1e-5 < found.loss_scale


def test_a_random_key_in_a_state_is_compared_as_its_numbers():
    kit.check(optax.noisy_sgd(0.1, key=jr.key(0)), [kit.JitEqualsEager()])
