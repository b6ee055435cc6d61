"""Properties that a good optimizer has, each a test that says what it found."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from hypothesis import given, settings, strategies as st
from jaxtyping import Array, PyTree

from .._optimizers import AbstractOptimizer
from ._base import AbstractProperty, close, for_gradients, run, STEPS, tree
from ._strategies import Gradients, spectra


class KeepsStructure(AbstractProperty):
    """Updates have the structure, shapes and dtypes of parameters, states their own."""

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        for dtype in ("float32", "bfloat16"):
            params = tree(dtype)
            init = eqx.filter_eval_shape(optimizer.init, params)
            step = lambda s, o=optimizer, p=params: o.update(p, s, p)
            updates, state = eqx.filter_eval_shape(step, init)
            _same_form(f"updates of {dtype} parameters", updates, params)
            _same_form(f"the state of {dtype} parameters", state, init)


def _same_form(name: str, ours: PyTree, theirs: PyTree) -> None:
    a, b = jtu.tree_structure(ours), jtu.tree_structure(theirs)
    assert a == b, f"KeepsStructure: {name} change structure, from {b} to {a}"
    pairs = zip(jtu.tree_leaves_with_path(ours), jtu.tree_leaves(theirs), strict=True)
    for (path, x), y in pairs:
        if hasattr(x, "dtype"):
            now, was = (x.shape, x.dtype), (y.shape, y.dtype)
            where = jtu.keystr(path)
            assert now == was, f"KeepsStructure: {name}: {where} is {now} and not {was}"


class StaysFinite(AbstractProperty):
    """Updates are finite for finite gradients, of scales from 10^`low` to 10^`high`."""

    low: int = -20
    high: int = 15

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        params = tree()

        def check(gradients: Gradients) -> None:
            updates, _ = run(optimizer, params, gradients.build(params, STEPS))
            for path, u in jtu.tree_leaves_with_path(updates):
                finite = np.isfinite(np.asarray(u))
                where = jtu.keystr(path)
                assert np.all(finite), f"StaysFinite: the update of {where} is not finite"

        for_gradients(check, self.low, self.high)


class WideAccumulators(AbstractProperty):
    """No floating-point array of the state is narrower than float32, for bfloat16 too."""

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        state = eqx.filter_eval_shape(optimizer.init, tree("bfloat16"))
        for path, x in jtu.tree_leaves_with_path(state):
            if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating):
                narrow = jnp.dtype(x.dtype).itemsize < 4
                where = jtu.keystr(path)
                assert not narrow, f"WideAccumulators: {where} of the state is {x.dtype}"


class RestsAtZeroGradient(AbstractProperty):
    """From a fresh state, a zero gradient gives an update of at most `bound`."""

    bound: float = 0.0

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        params = tree()
        zeros = jtu.tree_map(lambda p: jnp.zeros((STEPS, *p.shape), p.dtype), params)
        updates, _ = run(optimizer, params, zeros)
        for path, u in jtu.tree_leaves_with_path(updates):
            size = np.abs(np.asarray(u)).max(initial=0)
            assert size <= self.bound, (
                f"RestsAtZeroGradient: {jtu.keystr(path)} moves by {size} at a zero "
                f"gradient, above the bound of {self.bound}"
            )


class BoundedUpdate(AbstractProperty):
    """No number of an update is larger than `bound`, at any scale of the gradients."""

    bound: float

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        params = tree()

        def check(gradients: Gradients) -> None:
            updates, _ = run(optimizer, params, gradients.build(params, STEPS))
            for path, u in jtu.tree_leaves_with_path(updates):
                size = np.abs(np.asarray(u)).max(initial=0)
                assert size <= self.bound, (
                    f"BoundedUpdate: {jtu.keystr(path)} moves by {size}, above the "
                    f"promised {self.bound}"
                )

        for_gradients(check)


class IgnoresLeafOrder(AbstractProperty):
    """The same updates, whatever the order of the tree's leaves."""

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        params = tree()
        names = sorted(params)
        other = dict(zip(names, reversed(names), strict=True))
        renamed = lambda t: {other[name]: x for name, x in t.items()}

        def check(gradients: Gradients) -> None:
            grads = gradients.build(params, STEPS)
            updates, _ = run(optimizer, params, grads)
            moved, _ = run(optimizer, renamed(params), renamed(grads))
            close("IgnoresLeafOrder", renamed(moved), updates)

        for_gradients(check, -3, 3)


class JitEqualsEager(AbstractProperty):
    """The same updates and state with and without `jax.jit`."""

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        params = tree()
        grads = Gradients().build(params, STEPS)
        updates, last = run(optimizer, params, grads)
        state = optimizer.init(params)
        for t in range(STEPS):
            g = jtu.tree_map(lambda g, t=t: g[t], grads)
            eager, state = optimizer.update(g, state, params)
            close("JitEqualsEager", jtu.tree_map(lambda u, t=t: u[t], updates), eager)
        close("JitEqualsEager, the state", last, state)


class VmapEqualsLoop(AbstractProperty):
    """Under `jax.vmap` over parameters and gradients, each gets its own updates."""

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        trees = [tree(seed=seed) for seed in (1, 2)]
        grads = [Gradients(seed, seed).build(t, STEPS) for seed, t in enumerate(trees)]
        stack = lambda *xs: jtu.tree_map(lambda *x: jnp.stack(x), *xs)
        together = jax.vmap(lambda p, g: run(optimizer, p, g)[0])
        updates = together(stack(*trees), stack(*grads))
        alone = [run(optimizer, p, g)[0] for p, g in zip(trees, grads, strict=True)]
        close("VmapEqualsLoop", updates, stack(*alone))


class ShardedEqualsUnsharded(AbstractProperty):
    """The same updates where parameters are spread over the devices that there are.

    With one device it shows no more than that shardings are accepted; run the tests under
    `XLA_FLAGS=--xla_force_host_platform_device_count=4` for four.
    """

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        devices = jax.devices()
        axis_types = (jax.sharding.AxisType.Auto,)
        mesh = jax.make_mesh((len(devices),), ("x",), axis_types=axis_types)
        rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
        columns = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "x"))
        params = {"w": jr.normal(jr.key(0), (2 * len(devices), 3), jnp.float32)}
        grads = Gradients().build(params, STEPS)
        updates, _ = run(optimizer, params, grads)
        spread = jax.device_put(params, rows), jax.device_put(grads, columns)
        sharded, _ = run(optimizer, *spread)
        close("ShardedEqualsUnsharded", sharded, updates)


class NaNStaysInItsLeaf(AbstractProperty):
    """A NaN in one leaf's gradient changes no other leaf's update, then or later."""

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        params = tree()
        grads = Gradients().build(params, STEPS)
        clean, _ = run(optimizer, params, grads)
        broken = grads | {"w": grads["w"].at[1, 0, 0].set(jnp.nan)}
        dirty, _ = run(optimizer, params, broken)
        others = lambda t: {n: x for n, x in t.items() if n != "w"}
        close("NaNStaysInItsLeaf", others(dirty), others(clean))


class StableOnQuadratics(AbstractProperty):
    """On quadratics with curvatures up to `largest`, losses do not grow.

    For optimizers that promise it: gradient descent of step size a up to 2 / a.
    """

    largest: float
    steps: int = 200

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        @settings(max_examples=25, deadline=None)
        @given(spectra(3, low=1e-3 * self.largest, high=self.largest), st.integers(0, 99))
        def test(curvature: np.ndarray, seed: int) -> None:
            start = jr.normal(jr.key(seed), (3,), jnp.float32)
            # The bound is where it can break: the largest curvature is on it.
            curvature = curvature * self.largest / curvature[-1]
            h = jnp.asarray(curvature, jnp.float32)
            first, last = (float(x) for x in _descend(optimizer, h, start, self.steps))
            assert last <= first * (1 + 1e-4), (
                f"StableOnQuadratics: with curvatures {curvature} the loss went from "
                f"{first:.3g} to {last:.3g} in {self.steps} steps"
            )

        test()


@eqx.filter_jit
def _descend(
    optimizer: AbstractOptimizer, curvature: Array, start: Array, steps: int
) -> tuple[Array, Array]:
    loss = lambda p: 0.5 * jnp.sum(curvature * p**2)
    state = optimizer.init(start)
    arrays, rest = eqx.partition(state, eqx.is_array)

    def body(c: tuple[Array, PyTree], _: None) -> tuple[tuple[Array, PyTree], None]:
        p, arrays = c
        state = eqx.combine(arrays, rest)
        updates, state = optimizer.update(curvature * p, state, p)
        return (p + updates, eqx.filter(state, eqx.is_array)), None

    (p, _), _ = jax.lax.scan(body, (start, arrays), length=steps)
    return loss(start), loss(p)
