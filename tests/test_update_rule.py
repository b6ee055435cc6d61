"""The fast update is the plain update: for every variant, on every shape."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import pytest

import equistar as eqs
from equistar._numerics import exponential, inverse, inverse_root

from .helpers import randomised
from .reference import reference_start, reference_update


def _weight_decay(key):
    return eqs.WeightDecay(1e-2, eqs.MagnitudeController(scale=0.1, key=key))


VARIANTS = {
    "star": lambda key: eqs.STAR(key=key),
    "star_wide": lambda key: eqs.STAR(key=key, width=7, magnitude_scale=0.1),
    "star_per_tensor": lambda key: eqs.STAR(
        key=key, aggregation=eqs.PerTensor(), magnitude_scale=0.1
    ),
    "star_weight_decay": lambda key: eqs.STAR(key=key, weight_decay=_weight_decay(key)),
    "star_learned_scale": lambda key: eqs.STAR(
        key=key, nominal_scale=eqs.LearnedScale(1e-3)
    ),
    "star_no_preconditioner": lambda key: eqs.STAR(
        key=key, preconditioner=eqs.NoPreconditioner()
    ),
    "star_gradient": lambda key: eqs.STAR(key=key, direction=eqs.GradientDirection()),
    "star_momentum": lambda key: eqs.STAR(key=key, direction=eqs.MomentumDirection()),
    "star_aggmo": lambda key: eqs.STAR(key=key, direction=eqs.AggMoDirection()),
    "star_adam": lambda key: eqs.STAR(key=key, direction=eqs.AdamDirection()),
    "blackbox": lambda key: eqs.Blackbox(key=key),
    "blackbox_of_matrices": lambda key: eqs.Blackbox(
        key=key, width=32, magnitude_scale=0.1
    ),
    "hyperparam": lambda key: eqs.HyperparamController(key=key),
    "nominal_alone": lambda key: eqs.LearnedOptimizer(nominal=eqs.NominalTerm()),
}
SHAPES = {
    "scalar": (),
    "empty": (0,),
    "empty_matrix": (3, 0),
    "one": (1,),
    "vector": (300,),
    "matrix": (7, 3),
    "wide": (3, 200),
    "square": (6, 6),
    "row": (1, 8),
    "column": (9, 1),
    "ones": (1, 1, 1),
    "rank3": (5, 4, 3),
    "tie3": (2, 2, 2),
    "conv": (3, 3, 2, 4),
    "rank5": (2, 3, 1, 3, 2),
}


# Variants differ from each other elementwise only, so for all but the first a few shapes
# do; `pytest -m slow` crosses them all.
SOME = ("scalar", "vector", "matrix")
OTHERS = [v for v in VARIANTS if v != "star"]
SHAPES_OF = {"star": tuple(SHAPES)} | {v: SOME for v in OTHERS}


@pytest.mark.slow
@pytest.mark.parametrize("variant", OTHERS)
def test_fast_update_equals_the_reference_on_every_shape(variant):
    _check_against_the_reference(variant, tuple(SHAPES))


@pytest.mark.parametrize("variant", VARIANTS)
def test_fast_update_equals_the_reference_to_1e_11_of_the_largest(variant):
    _check_against_the_reference(variant, SHAPES_OF[variant])


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_so_are_its_forms_for_other_devices(monkeypatch, platform):
    taken = []

    def of_platform(*args, default, **forms):
        taken.append(platform in forms)
        return forms.get(platform, default)(*args)

    jax.clear_caches()
    monkeypatch.setattr(lax, "platform_dependent", of_platform)
    _check_against_the_reference("star", ("scalar", "vector", "matrix", "rank3"))
    assert any(taken)
    jax.clear_caches()


def _check_against_the_reference(variant, names):
    keys = jr.split(jr.key(1), 3)
    optimizer = randomised(VARIANTS[variant](keys[0]), keys[1])
    rng = np.random.default_rng(2)
    draw = lambda: {n: jnp.asarray(rng.normal(size=SHAPES[n])) for n in names}
    params = draw()
    state = optimizer.init(params)
    update = eqx.filter_jit(optimizer.update)
    averages = {name: reference_start(optimizer) for name in names}
    for count, scale in enumerate((1.0, 1e-4, 0.0, 30.0)):
        grads = jtu.tree_map(lambda g, scale=scale: scale * g, draw())
        updates, state = update(grads, state, params)
        for name in names:
            expected, averages[name] = reference_update(
                optimizer, grads[name], params[name], averages[name], count
            )
            largest = np.max(np.abs(expected), initial=0.0)
            np.testing.assert_allclose(
                updates[name], expected, rtol=0, atol=1e-11 * largest, err_msg=name
            )
        params = jtu.tree_map(jnp.add, params, updates)


@pytest.mark.parametrize(
    "variant, number",
    # Trunk 39 x 4 + 4 and 4 x 4 + 4; five for each head; seven decays.
    [("star", 202), ("blackbox", 197), ("hyperparam", 192), ("star_learned_scale", 203)],
)
def test_number_of_learned_numbers_is_the_papers(variant, number):
    assert eqs.count_learned(VARIANTS[variant](jr.key(0))) == number


def test_a_learned_magnitude_scale_is_one_for_each_magnitude():
    star = eqs.STAR(key=jr.key(0), magnitude_scale=eqs.LearnedScale(0.1))
    assert eqs.count_learned(star) == 202 + 2


def test_fresh_star_is_its_nominal_optimizer():
    # The direction head starts at zero, and the nominal magnitude is exp(1e-3 a).
    star = eqs.STAR(key=jr.key(0), magnitude_scale=0.0)
    nominal = eqs.LearnedOptimizer(nominal=eqs.NominalTerm())
    params = jnp.arange(6.0).reshape(2, 3)
    for optimizer in (star, nominal):
        state = optimizer.init(params)
        update, _ = optimizer.update(params - 1, state, params)
        # A_j = (1 - b_j) g / sqrt(0.001 g^2 + 1e-6), the mean over b = .9, .99, .999.
        g = params - 1
        expected = -1e-3 * (0.111 / 3) * g / jnp.sqrt(0.001 * g**2 + 1e-6)
        np.testing.assert_allclose(update, expected, rtol=1e-12)


@pytest.mark.parametrize("variant", ["star", "hyperparam"])
def test_fresh_optimizer_does_not_move_at_zero_gradient(variant):
    optimizer = VARIANTS[variant](jr.key(0))
    params = jnp.ones((3, 2))
    update, _ = optimizer.update(jnp.zeros((3, 2)), optimizer.init(params), params)
    assert jnp.all(update == 0)


def test_release_initialisation_gives_a_direction_at_once():
    star = eqs.STAR(key=jr.key(0), direction_init=eqs.release_init)
    assert jnp.all(star.blackbox.direction.weight != 0)
    assert jnp.all(jnp.abs(star.blackbox.direction.weight) <= 2 / np.sqrt(4))


def test_release_initialiser_has_standard_deviation_0_880_over_root_fan_in():
    # A standard normal truncated to [-2, 2] has standard deviation 0.87962566; the
    # sample's relative standard error is below 1 / sqrt(2 n) = 0.0016.
    weights = eqs.release_init(jr.key(0), (4, 50_000))
    np.testing.assert_allclose(np.std(weights), 0.87962566 / 2, rtol=0.0064)


def test_parts_keep_only_the_accumulators_that_they_read():
    sgd = eqs.LearnedOptimizer(nominal=eqs.NominalTerm(eqs.GradientDirection()))
    assert sgd.accumulators == {}
    assert eqs.count_learned(sgd) == 0
    params = jnp.array([1.0, 2.0])
    update, state = sgd.update(params, sgd.init(params), params)
    np.testing.assert_allclose(update, -1e-3 * params)
    assert len(jtu.tree_leaves(state)) == 1


def test_a_part_that_reads_an_unknown_accumulator_is_named():
    class Wrong(eqs.AbstractDirection):
        reads = ("curvature",)

        def __call__(self, tensor):
            return tensor.accumulators["curvature"][0]

    with pytest.raises(ValueError, match=r"NominalTerm reads .*'curvature'"):
        eqs.LearnedOptimizer(nominal=eqs.NominalTerm(Wrong()))


@pytest.mark.parametrize("kind", [eqs.STAR, eqs.Blackbox, eqs.AdaptiveSTAR])
def test_an_accumulator_that_a_weight_decay_reads_is_kept_or_named(kind):
    class Reading(eqs.AbstractWeightDecay):
        reads: tuple[str, ...] = eqx.field(static=True)

        def __call__(self, tensor, hidden):
            return 1e-3 * tensor.param

    kept = kind(weight_decay=Reading(("momentum",)), key=jr.key(0))
    assert "momentum" in kept.accumulators
    with pytest.raises(ValueError, match=r"Reading reads .*'curvature'"):
        kind(weight_decay=Reading(("curvature",)), key=jr.key(0))


def test_an_accumulator_that_a_part_reads_and_does_not_declare_is_named():
    class Forgetful(eqs.AbstractDirection):
        reads = ("second_moment",)

        def __call__(self, tensor):
            return tensor.momentum[0] * tensor.inverse_rms

    optimizer = eqs.LearnedOptimizer(nominal=eqs.NominalTerm(Forgetful()))
    params = jnp.ones(3)
    expected = r"'momentum' and does not declare it.*`reads`.*\['second_moment'\]"
    with pytest.raises(ValueError, match=expected):
        optimizer.update(params, optimizer.init(params), params)


class _Given(eqs.AbstractFeatures):
    give: Callable[[eqs.Tensor], eqs.Inputs] = eqx.field(static=True)
    reads = ()

    def __call__(self, tensor):
        return self.give(tensor)


@pytest.mark.parametrize(
    "shape, give, message",
    [
        (
            (4, 4),
            lambda t: eqs.Inputs(element=(t.grad,), row=(jnp.mean(t.grad, -1),)),
            r"_Given, an input in `row` has shape \(4,\) .* shape \(4, 4\): keep all axes",
        ),
        (
            (4, 3),
            lambda t: eqs.Inputs(element=(t.grad,), column=jnp.ones((1, 1, 2))),
            r"in `column` has shape \(1, 2\)",
        ),
        (
            (4,),
            lambda t: eqs.Inputs(element=(t.grad, jnp.mean(t.grad))),
            r"per element has shape \(\) .*numbers of the whole tensor go into `tensor`",
        ),
        (
            (4,),
            lambda t: eqs.Inputs((t.grad,), tensor=(t.grad,)),
            r"_Given return has shape \(4,\) .* in `tensor` of .*go into `element`",
        ),
        (
            (4,),
            lambda t: eqs.Inputs((t.grad,), tensor=jnp.mean(t.grad)),
            r"_Given return has shape \(\) .* in `tensor` .* a tuple of real numbers",
        ),
        (
            (4,),
            lambda t: eqs.Inputs((t.grad,), tensor=(None, 1.0)),
            "_Given return has a NoneType in `tensor`",
        ),
        (
            (4,),
            lambda t: eqs.Inputs((t.grad.astype(complex),)),
            "dtype complex128 in `element` of `Inputs`: it must be a tuple of real arrays",
        ),
        (
            (4,),
            lambda t: eqs.Inputs((t.grad,), row=(t.grad.astype(complex),)),
            "_Given return has .* dtype complex128 in `row`",
        ),
        ((4,), lambda t: eqs.Inputs((t.grad,), row=(1.0,)), "has a float in `row`"),
        ((4,), lambda t: eqs.Inputs((None,)), "has a NoneType in `element`"),  # pyright: ignore
        (
            (4,),
            lambda t: eqs.Inputs(t.grad),  # pyright: ignore
            r"has shape \(4,\) .* in `element` .* say `\(tensor.grad,\)`",
        ),
        (
            (4,),
            lambda t: eqs.Inputs((t.grad,), mean_squares={"element": jnp.ones(2)}),
            r"`mean_squares` has 2 numbers of 1 inputs in 'element'",
        ),
        (
            (4,),
            lambda t: eqs.Inputs((t.grad,), mean_squares={"rows": (None,)}),
            r"`mean_squares` has 1 numbers of 0 inputs in 'rows'",
        ),
        (
            (4,),
            lambda t: eqs.Inputs((t.grad,), mean_squares={"element": 1.0}),
            r"must be a dictionary of tuples",
        ),
        (
            (4,),
            lambda t: eqs.Inputs((t.grad,), mean_squares={"element": (t.grad,)}),
            "The `mean_squares` that the features _Given return must be .* real numbers",
        ),
        (
            (4,),
            lambda t: eqs.Inputs((t.grad,), mean_squares={"element": ("one",)}),
            "_Given return must be a dictionary of tuples of real numbers",
        ),
        (
            (4,),
            lambda t: eqs.Inputs((t.grad,), mean_squares={"element": "1"}),
            "_Given return must be a dictionary of tuples of real numbers",
        ),
        (
            (4,),
            lambda t: eqs.Inputs((t.grad,), mean_squares={"element": jnp.ones((1, 4))}),
            "_Given return must be a dictionary of tuples of real numbers",
        ),
        (
            (4,),
            lambda t: eqs.Inputs((t.grad,), mean_squares={"element": (1j,)}),
            "_Given return must be a dictionary of tuples of real numbers",
        ),
    ],
)
def test_an_input_of_the_wrong_shape_or_kind_is_named(shape, give, message, as_users_call):
    optimizer = eqs.LearnedOptimizer(
        features=_Given(give),
        network=eqs.BlackboxMLP(in_size=2, key=jr.key(0)),
        blackbox=eqs.BlackboxTerm(key=jr.key(1)),
    )
    params = jnp.ones(shape)
    with pytest.raises(ValueError, match=message):
        optimizer.update(params, optimizer.init(params), params)


@pytest.mark.parametrize("width", [4, 16])
def test_inputs_of_the_whole_tensor_alone_have_derivatives(width):
    trunk, head = jr.split(jr.key(0))
    magnitude = eqs.MagnitudeController(width, 1.0, key=head)
    optimizer = eqs.LearnedOptimizer(
        features=eqs.TensorStatistics(),
        network=eqs.BlackboxMLP(in_size=11, width=width, key=trunk),
        nominal=eqs.NominalTerm(magnitude=magnitude, scale=1e-2),
    )
    params, grads = jr.normal(jr.key(2), (2, 4, 3))

    def loss(optimizer):
        update, _ = optimizer.update(grads, optimizer.init(params), params)
        return jnp.sum(update**2)

    slopes: Any = eqx.filter_grad(loss)(optimizer)
    move = lambda h: loss(
        eqx.tree_at(lambda o: o.network.weights[0], optimizer, replace_fn=lambda w: w + h)
    )
    numbers = (move(1e-5) - move(-1e-5)) / 2e-5
    np.testing.assert_allclose(jnp.sum(slopes.network.weights[0]), numbers, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
def test_accumulators_are_stored_as_they_begin(dtype):
    class Narrow(eqs.AbstractAccumulator):
        def init(self, param):
            return (jnp.zeros_like(param, dtype=jnp.bfloat16),)

        def update(self, state, tensor):
            return (0.5 * state[0].astype(tensor.grad.dtype) + tensor.grad,)

    class Reading(eqs.AbstractDirection):
        reads = ("narrow",)

        def __call__(self, tensor):
            return tensor.accumulators["narrow"][0]

    optimizer = eqs.LearnedOptimizer(
        nominal=eqs.NominalTerm(Reading(), scale=1.0), accumulators={"narrow": Narrow()}
    )
    params = jnp.ones((3, 2), dtype)
    state = optimizer.init(params)
    step: Any = lambda state, _: optimizer.update(params, state, params)[::-1]
    after, updates = jax.lax.scan(step, state, None, length=3)
    assert eqx.tree_equal(jax.eval_shape(lambda: after), jax.eval_shape(lambda: state))
    np.testing.assert_array_equal(updates[:, 0, 0].astype(float), [-1, -1.5, -1.75])


def test_as_many_momenta_as_factored_moments_are_asked_for():
    bank = {**eqs.default_accumulators(), "momentum": eqs.Momentum((0.5, 0.9))}
    optimizer = eqs.LearnedOptimizer(
        features=eqs.AdafactorFeatures(),
        network=eqs.BlackboxMLP(key=jr.key(0)),
        blackbox=eqs.BlackboxTerm(key=jr.key(1)),
        accumulators=bank,
    )
    params = jnp.ones((3, 2))
    with pytest.raises(
        ValueError, match="as many momenta as factored moments; got 2 and 3"
    ):
        optimizer.update(params, optimizer.init(params), params)


def test_row_inputs_of_several_shapes_count_as_spread_ones():
    # By themselves, of one shape and joined from two sets of which each has its own.
    full = lambda t: (t.grad, jnp.broadcast_to(jnp.mean(t.grad), t.grad.shape))
    small = lambda t: (t.grad, jnp.mean(t.grad, (0, 1), keepdims=True))
    spread = lambda t: eqs.Inputs(row=full(t), element=(t.param,))
    mixed = lambda t: eqs.Inputs(row=small(t), element=(t.param,))
    rows = lambda t: jnp.mean(t.grad, 1, keepdims=True)[None]
    numbers = lambda t: jnp.mean(t.grad, (0, 1), keepdims=True)[None]
    parts = [_Given(lambda t: eqs.Inputs(row=rows(t), element=(t.param,)))]
    parts += [_Given(lambda t: eqs.Inputs(row=numbers(t)))]
    both = lambda t: eqs.Inputs(
        row=jnp.concatenate([rows(t), jnp.broadcast_to(numbers(t), rows(t).shape)]),
        element=(t.param,),
    )

    def update(features):
        optimizer = eqs.LearnedOptimizer(
            features=features,
            network=eqs.BlackboxMLP(in_size=3, key=jr.key(0)),
            blackbox=eqs.BlackboxTerm(
                preconditioner=eqs.NoPreconditioner(),
                init=eqs.release_init,
                scale=1.0,
                key=jr.key(1),
            ),
        )
        params, grads = jr.normal(jr.key(2), (2, 4, 3))
        return optimizer.update(grads, optimizer.init(params), params)[0]

    np.testing.assert_allclose(update(_Given(mixed)), update(_Given(spread)), rtol=1e-9)
    joined = update(eqs.JoinedFeatures(*parts))
    np.testing.assert_allclose(joined, update(_Given(both)), rtol=1e-9)


def _one(x):
    return (jnp.zeros_like(x),)


class _Counting(eqs.AbstractAccumulator):
    start: Any = eqx.field(static=True)
    end: Any = eqx.field(static=True)

    def init(self, param):
        return self.start(param)

    def update(self, state, tensor):
        return self.end(tensor.grad)


@pytest.mark.parametrize(
    "start, end, message",
    [
        (
            lambda p: (jnp.zeros((), jnp.int32),),
            _one,
            r"begins with i32\[\]: .* a tuple of",
        ),
        (
            jnp.zeros_like,
            _one,
            r"'momentum' begins with f64\[3\]: its `init` .* say `\(x,\)`",
        ),
        (lambda p: None, _one, "'momentum' begins with None: its `init` must return a tu"),
        (lambda p: (p.astype(complex),), _one, r"'momentum' begins with c128\[3\]"),
        (_one, lambda g: (jnp.sum(g),), r"was \(f64\[3\],\) and .* is \(f64\[\],\)"),
        (_one, jnp.zeros_like, r"was \(f64\[3\],\) and .* is f64\[3\]: .* in a tuple"),
        (_one, lambda g: None, "after an update is None: `update` must return real"),
        (
            _one,
            lambda g: (g.astype(complex),),
            r"is \(c128\[3\],\): `update` must return real ar",
        ),
        (lambda p: (jnp.zeros(()),), lambda g: (0.0,), r"after an update is \(0.0,\)"),
    ],
)
def test_an_accumulator_that_is_no_tuple_of_the_same_floating_point_arrays_is_named(
    start, end, message, as_users_call
):
    optimizer = eqs.LearnedOptimizer(
        nominal=eqs.NominalTerm(eqs.AggMoDirection()),
        accumulators={"momentum": _Counting(start, end)},
    )
    params = jnp.ones(3)
    with pytest.raises(ValueError, match=message):
        optimizer.update(params, optimizer.init(params), params)


@pytest.mark.parametrize(
    "name, accumulator, message",
    [
        ("second_moment", eqs.Momentum(), "is a Momentum, and parts read a SecondMoment"),
        ("momentum", eqs.FactoredSecondMoment(), "'momentum' is a FactoredSecondMoment"),
        ("momentum", eqs.InBFloat16(eqs.SecondMoment()), "'momentum' is a SecondMoment"),
    ],
)
def test_an_accumulator_by_the_name_of_another_is_refused(name, accumulator, message):
    bank = {**eqs.default_accumulators(), name: accumulator}
    with pytest.raises(ValueError, match=message):
        eqs.LearnedOptimizer(nominal=eqs.NominalTerm(), accumulators=bank)
    # By a name of its own it is taken.
    bank = {**eqs.default_accumulators(), "other": accumulator}
    eqs.LearnedOptimizer(nominal=eqs.NominalTerm(), accumulators=bank)


class _OneName(eqs.AbstractDirection):
    reads = "momentum"  # pyright: ignore

    def __call__(self, tensor):
        return tensor.momentum[0]


def test_the_names_that_a_part_reads_are_a_tuple_and_by_default_none():
    with pytest.raises(ValueError, match=r"`reads` of _OneName .*\('momentum',\)"):
        _OneName()
    for reads in (None, 3, ("momentum", 3), (eqs.Momentum(),)):
        own = type("Own", (_OneName,), {"reads": reads})
        with pytest.raises(ValueError, match="`reads` of Own must be a tuple of names"):
            own()

    class Raw(eqs.AbstractDirection):
        def __call__(self, tensor):
            return tensor.grad

    assert eqs.LearnedOptimizer(nominal=eqs.NominalTerm(Raw())).accumulators == {}


class _Bare(eqs.AbstractFeatures):
    def __call__(self, tensor) -> Any:
        return (tensor.grad,)


@pytest.mark.parametrize("features", [_Bare(), eqs.JoinedFeatures(_Bare())])
def test_features_that_return_no_inputs_are_refused(features, as_users_call):
    optimizer = eqs.LearnedOptimizer(
        features=features,
        network=eqs.BlackboxMLP(in_size=1, key=jr.key(0)),
        blackbox=eqs.BlackboxTerm(key=jr.key(1)),
    )
    params = jnp.ones(3)
    with pytest.raises(ValueError, match=r"features _Bare return must be `Inputs`.*got \("):
        optimizer.update(params, optimizer.init(params), params)


class _Askew(eqs.AbstractDirection):
    give: Any = eqx.field(static=True)
    reads: ClassVar[tuple[str, ...]] = ()

    def __call__(self, tensor):
        return self.give(tensor.grad)


@pytest.mark.parametrize(
    "give, message",
    [
        (lambda g: jnp.sum(g, axis=0), r"_Askew gave shape \(3,\) .* shape \(2, 3\)"),
        (lambda g: g[None], r"_Askew gave shape \(1, 2, 3\)"),
        (lambda g: g.astype(complex), "dtype complex128 .* must be real"),
    ],
)
def test_a_direction_of_the_wrong_shape_or_dtype_is_named(give, message, as_users_call):
    optimizer = eqs.LearnedOptimizer(nominal=eqs.NominalTerm(_Askew(give)))
    params = jnp.ones((2, 3))
    with pytest.raises(ValueError, match=message):
        optimizer.update(params, optimizer.init(params), params)


@pytest.mark.parametrize("timescales", [(0, 100), (-1,), "abc", 10, (1.5,), ((1, 2),)])
def test_time_scales_that_are_no_times_are_refused(timescales, as_users_call):
    with pytest.raises(ValueError, match="`timescales` must be a tuple of whole numbers"):
        eqs.AdafactorFeatures(timescales)


def test_time_scales_may_be_a_list_or_an_array():
    expected = eqs.AdafactorFeatures((10, 100)).timescales
    for given in ([10, 100], np.array([10, 100]), jnp.array([10, 100])):
        found: Any = eqs.AdafactorFeatures(given)  # pyright: ignore
        assert found.timescales == expected and hash(found.timescales)


def test_a_head_of_the_wrong_width_is_named():
    optimizer = eqs.LearnedOptimizer(
        features=eqs.AdafactorFeatures(),
        network=eqs.BlackboxMLP(width=8, key=jr.key(0)),
        blackbox=eqs.BlackboxTerm(width=4, key=jr.key(1)),
    )
    params = jnp.ones(3)
    with pytest.raises(ValueError, match="same `width`"):
        optimizer.update(params, optimizer.init(params), params)


def test_a_network_of_the_wrong_size_is_named():
    optimizer = eqs.LearnedOptimizer(
        features=eqs.AdafactorFeatures(),
        network=eqs.BlackboxMLP(in_size=12, key=jr.key(0)),
        blackbox=eqs.BlackboxTerm(key=jr.key(1)),
    )
    params = jnp.ones(3)
    with pytest.raises(ValueError, match="in_size=39"):
        optimizer.update(params, optimizer.init(params), params)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_outside_0_1_is_refused(decay):
    with pytest.raises(ValueError, match="Decays"):
        eqs.SecondMoment(decay)


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1e8, 1e15])
def test_float32_gradients_up_to_1e15_give_finite_updates(size):
    optimizer = randomised(eqs.STAR(key=jr.key(0)), jr.key(1))
    params = {"w": jnp.ones((4, 3), jnp.float32), "b": jnp.ones(3, jnp.float32)}
    grads = jtu.tree_map(lambda p: size * p, params)
    state = optimizer.init(params)
    updates = params
    for _ in range(2):
        updates, state = optimizer.update(grads, state, params)
    assert all(jnp.all(jnp.isfinite(u)) for u in jtu.tree_leaves(updates))


def test_meta_gradients_are_finite_at_zero_gradients():
    params = {"s": jnp.zeros(()), "v": jnp.zeros(3), "m": jnp.zeros((2, 3))}

    @jax.grad
    def meta_gradient(theta):
        state, p = theta.init(params), params
        for _ in range(2):
            updates, state = theta.update(jtu.tree_map(jnp.zeros_like, p), state, p)
            p = jtu.tree_map(jnp.add, p, updates)
        return sum(jnp.sum(x) for x in jtu.tree_leaves(p))

    gradient = meta_gradient(randomised(eqs.STAR(key=jr.key(0)), jr.key(1)))
    assert all(jnp.all(jnp.isfinite(g)) for g in jtu.tree_leaves(gradient))


def test_meta_gradient_through_the_fast_update_equals_the_references():
    optimizer = randomised(eqs.STAR(key=jr.key(0), magnitude_scale=0.1), jr.key(1))
    rng = np.random.default_rng(0)
    param, grad = (jnp.asarray(rng.normal(size=(4, 3))) for _ in range(2))
    count = 5

    def fast(theta):
        state = eqx.tree_at(
            lambda s: s.count, theta.init(param), jnp.asarray(count, jnp.int32)
        )
        return jnp.sum(theta.update(grad, state, param)[0] ** 2)

    def slow(theta):
        return np.sum(
            reference_update(theta, grad, param, reference_start(theta), count)[0] ** 2
        )

    @jax.jit
    def gradients(theta):
        _, along = jax.jvp(fast, (theta,), (theta,))
        return jax.grad(fast)(theta), along

    found, along = gradients(optimizer)
    expected = _gradient_by_complex_steps(slow, optimizer)
    # Forward mode, along theta itself.
    products = jtu.tree_map(lambda s, t: np.sum(s * np.asarray(t)), expected, optimizer)
    np.testing.assert_allclose(along, sum(jtu.tree_leaves(products)), rtol=1e-8)
    for f, s in zip(jtu.tree_leaves(found), jtu.tree_leaves(expected), strict=True):
        np.testing.assert_allclose(f, s, rtol=1e-8, atol=1e-12 * float(np.max(np.abs(s))))


# Im f(x + i h) / h is the slope of an analytic function, without a difference of numbers
# that are nearly equal: to rounding, for any small h.
def _gradient_by_complex_steps(function, theta, h=1e-30):
    leaves, structure = jtu.tree_flatten(theta)

    def slope(i, place):
        moved = [np.asarray(x, complex) for x in leaves]
        moved[i] = moved[i].copy()
        moved[i][place] += 1j * h
        return function(structure.unflatten(moved)).imag / h

    slopes = [
        np.array([slope(i, place) for place in np.ndindex(x.shape)]).reshape(x.shape)
        for i, x in enumerate(leaves)
    ]
    return structure.unflatten(slopes)


@pytest.mark.parametrize(
    "ours, jaxs", [(inverse, jnp.reciprocal), (inverse_root, lax.rsqrt)]
)
def test_inverses_have_the_derivatives_of_jaxs(ours, jaxs):
    for x in jnp.array([1e-9, 0.3, 1e5]):
        for derivative in (lambda f: f, jax.grad, lambda f: jax.grad(jax.grad(f))):
            np.testing.assert_allclose(derivative(ours)(x), derivative(jaxs)(x), rtol=1e-12)


def test_the_exponential_in_float32_is_that_of_numpy():
    # Beyond [-87, 88] it stays where it was: 0 and infinity are not numbers to step by.
    x = np.concatenate([np.linspace(-95, 95, 190001), np.linspace(-1, 1, 20001)])
    x = np.concatenate([x, [np.inf, -np.inf]]).astype(np.float32)
    inside = np.clip(np.asarray(x, np.float64), -87, 88)
    found = jax.jit(exponential)(jnp.asarray(x))
    assert found.dtype == jnp.float32
    error = np.abs(np.asarray(found, np.float64) / np.exp(inside) - 1)
    assert np.all(error <= 4e-7 + 1e-7 * np.abs(inside))
    assert exponential(jnp.float32(0)) == 1
    assert np.isnan(exponential(jnp.float32(jnp.nan)))


@pytest.mark.parametrize("dtype, rtol", [(jnp.float32, 1e-6), (jnp.float64, 1e-15)])
def test_the_exponential_is_its_own_derivative(dtype, rtol):
    for x in jnp.array([-3.0, 0.0, 0.1, 7.0], dtype):
        for f in (exponential, jax.grad(exponential), jax.grad(jax.grad(exponential))):
            np.testing.assert_allclose(f(x), np.exp(np.float64(x)), rtol=rtol)
