"""Properties that a good optimizer has, each a test that says what it found."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from .._linear_loss import linear_loss
from .._optimizers import AbstractOptimizer
from ._base import (
    AbstractProperty,
    close,
    for_gradients,
    for_trees,
    MANY_STEPS,
    rounding,
    run,
    STEPS,
    TRACED,
    tree,
)
from ._strategies import Gradients, Parameters, STRUCTURES


class KeepsStructure(AbstractProperty):
    """Updates have the structure, shapes and dtypes of parameters, states their own."""

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        for structure, dtype in TRACED:
            params = Parameters(structure, dtype).build()
            name = f"{dtype} parameters ({structure})"
            init = eqx.filter_eval_shape(optimizer.init, params)
            step = lambda s, o=optimizer, p=params: o.update(p, s, p, **linear_loss(p, p))
            updates, state = eqx.filter_eval_shape(step, init)
            _same_form(f"updates of {name}", updates, params)
            _same_form(f"the state of {name}", state, init)


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
    """Updates are finite for finite gradients, of scales from 10^`low` to 10^`high`.

    **Attributes:**

    - `low`, `high`: decimal exponents.
    - `steps`: the number of updates that are looked at.
    """

    low: int = -20
    high: int = 15
    steps: int = MANY_STEPS

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        def check(parameters: Parameters, gradients: Gradients) -> None:
            params = parameters.build()
            updates, _ = run(optimizer, params, gradients.build(params, self.steps))
            for path, u in jtu.tree_leaves_with_path(updates):
                finite = np.isfinite(np.asarray(u, np.float64))
                where = jtu.keystr(path)
                first = 1 + int(np.argmin(finite.reshape(len(finite), -1).all(1)))
                assert np.all(finite), (
                    f"StaysFinite: update {first} of {where} is not finite, of {parameters}"
                )

        for_trees(check, self.low, self.high, self.steps)


class WideAccumulators(AbstractProperty):
    """No floating-point array of the state is narrower than float32, for bfloat16 too."""

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        for structure in STRUCTURES:
            params = Parameters(structure, "bfloat16").build()
            state = eqx.filter_eval_shape(optimizer.init, params)
            for path, x in jtu.tree_leaves_with_path(state):
                if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating):
                    narrow = jnp.dtype(x.dtype).itemsize < 4
                    where = f"{jtu.keystr(path)} of the state of {structure!r}"
                    assert not narrow, f"WideAccumulators: {where} is {x.dtype}"


class RestsAtZeroGradient(AbstractProperty):
    """From a fresh state, a zero gradient gives an update of at most `bound`.

    **Attributes:**

    - `bound`: on every number of the update, in units of the parameters.
    - `steps`: the number of updates that are looked at.
    """

    bound: float = 0.0
    steps: int = MANY_STEPS

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        params = {name: Parameters(name, seed=1).build() for name in STRUCTURES}
        still = lambda p: jnp.zeros((self.steps, *p.shape), p.dtype)
        zeros = jtu.tree_map(still, params)
        updates, _ = run(optimizer, params, zeros)
        for path, u in jtu.tree_leaves_with_path(updates):
            size = np.abs(np.asarray(u)).max(initial=0)
            assert size <= self.bound, (
                f"RestsAtZeroGradient: {jtu.keystr(path)} moves by {size:.4g} at a zero "
                f"gradient, above the bound of {self.bound}"
            )


class BoundedUpdate(AbstractProperty):
    """No number of an update is larger than `bound`, at any scale of the gradients.

    **Attributes:**

    - `bound`: on the absolute value, in units of the parameters.
    - `steps`: the number of updates that are looked at. What is largest after a thousand
        updates, as Adam's is at its bound, takes as many to show.
    """

    bound: float
    steps: int = MANY_STEPS

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        params = tree()

        def check(gradients: Gradients) -> None:
            updates, _ = run(optimizer, params, gradients.build(params, self.steps))
            for path, u in jtu.tree_leaves_with_path(updates):
                size = np.abs(np.asarray(u)).max(initial=0)
                assert size <= self.bound, (
                    f"BoundedUpdate: {jtu.keystr(path)} moves by {size:.4g}, above the "
                    f"promised {self.bound}"
                )

        for_gradients(check, steps=self.steps)


class IgnoresLeafOrder(AbstractProperty):
    """The same updates, whatever the order of the tree's leaves."""

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        params = tree()
        names = sorted(params)
        other = dict(zip(names, reversed(names), strict=True))
        renamed = lambda t: {other[name]: x for name, x in t.items()}
        tolerance = rounding(optimizer, params)

        def check(gradients: Gradients) -> None:
            grads = gradients.build(params, STEPS)
            updates, _ = run(optimizer, params, grads)
            moved, _ = run(optimizer, renamed(params), renamed(grads))
            close("IgnoresLeafOrder", renamed(moved), updates, tolerance)

        for_gradients(check, -3, 3)


class JitEqualsEager(AbstractProperty):
    """The same updates and state with and without `jax.jit`."""

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        params = tree()
        grads = Gradients().build(params, STEPS)
        updates, last = run(optimizer, params, grads)
        state = optimizer.init(params)
        tolerance = rounding(optimizer, params)
        for t in range(STEPS):
            g = jtu.tree_map(lambda g, t=t: g[t], grads)
            eager, state = optimizer.update(g, state, params, **linear_loss(g, params))
            jitted = jtu.tree_map(lambda u, t=t: u[t], updates)
            close("JitEqualsEager", jitted, eager, tolerance)
        close("JitEqualsEager, the state", last, state, tolerance)


class VmapEqualsLoop(AbstractProperty):
    """Under `jax.vmap` over parameters and gradients, each gets its own updates."""

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        trees = [tree(seed=seed) for seed in (1, 2)]
        tolerance = rounding(optimizer, trees[0])
        stack = lambda *xs: jtu.tree_map(lambda *x: jnp.stack(x), *xs)
        together = eqx.filter_jit(
            lambda o, ps, gs: jax.vmap(lambda p, g: run(o, p, g)[0])(ps, gs)
        )

        def check(gradients: Gradients) -> None:
            # Beside plain gradients: what leaks from one to the other shows.
            recipes = gradients, Gradients(1)
            grads = [r.build(t, STEPS) for r, t in zip(recipes, trees, strict=True)]
            updates = together(optimizer, stack(*trees), stack(*grads))
            for i, (p, g) in enumerate(zip(trees, grads, strict=True)):
                ours = jtu.tree_map(lambda u, i=i: u[i], updates)
                close("VmapEqualsLoop", ours, run(optimizer, p, g)[0], tolerance)

        for_gradients(check, -3, 3)


class ShardedEqualsUnsharded(AbstractProperty):
    """The same updates if a matrix is spread over all devices, by rows or by columns.

    With one device it only shows that shardings are accepted. For four devices, run the
    tests under `XLA_FLAGS=--xla_force_host_platform_device_count=4`.
    """

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        devices = jax.devices()
        mesh = jax.make_mesh((len(devices),), ("x",), axis_types=(AxisType.Auto,))
        length = 32 * len(devices)
        axes = {"rows": ("x", None), "columns": (None, "x")}
        params = {
            name: jr.normal(jr.key(i), [length if x else 24 for x in cut], jnp.float32)
            for i, (name, cut) in enumerate(axes.items())
        }
        grads = Gradients().build(params, STEPS)
        updates, _ = run(optimizer, params, grads)
        place = lambda *cut: NamedSharding(mesh, PartitionSpec(*cut))
        of_params = {name: place(*cut) for name, cut in axes.items()}
        of_grads = {name: place(None, *cut) for name, cut in axes.items()}
        spread = jax.device_put(params, of_params), jax.device_put(grads, of_grads)
        sharded, _ = run(optimizer, *spread)
        tolerance = rounding(optimizer, params)
        close("ShardedEqualsUnsharded", sharded, updates, tolerance)


class NaNStaysInItsLeaf(AbstractProperty):
    """A NaN in one leaf's gradient changes no other leaf's update, then or later."""

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        params = tree()
        clean, _ = run(optimizer, params, Gradients().build(params, STEPS))
        filled = [name for name, p in params.items() if p is not None and p.size > 0]
        for i, name in enumerate(sorted(filled)):
            grads = Gradients(nan=i).build(params, STEPS)
            assert np.any(np.isnan(np.asarray(grads[name])))
            dirty, _ = run(optimizer, params, grads)
            others = lambda t, name=name: {n: x for n, x in t.items() if n != name}
            title = f"NaNStaysInItsLeaf, a NaN being in ['{name}']"
            # Both are of one program: nothing is rounded in another way.
            close(title, others(dirty), others(clean), 1e-4)
