"""What an optimizer promises on noisy quadratics."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from hypothesis import given, settings, strategies as st
from jaxtyping import Array, Float, PyTree

from .._numerics import matmul
from .._optimizers import AbstractOptimizer
from ._base import AbstractProperty, PHASES
from ._strategies import spd_matrices


class StableOnQuadratics(AbstractProperty):
    """On noisy quadratics with curvatures up to `largest`, runs do not move apart.

    Two runs see the same noise; one of them starts from the minimum. $d^\\top H d$ of their
    difference $d$ must not have grown after `steps`. Without noise the second run does not
    move, and $d^\\top H d$ is twice the loss. For a linear optimizer, noise does not change
    the difference, and the loss stays bounded with noise if and only if it does without.

    Use it for optimizers that promise it: gradient descent with step size a does, up to
    2 / a.

    **Attributes:**

    - `largest`: the largest curvature.
    - `steps`: of each run.
    """

    largest: float
    steps: int = 200

    def __call__(self, optimizer: AbstractOptimizer) -> None:
        matrices = spd_matrices(3, low=1e-3 * self.largest, high=self.largest)

        @settings(max_examples=25, deadline=None, phases=PHASES)
        @given(matrices, st.sampled_from((0.0, 1.0)), st.integers(0, 99))
        def test(hessian: np.ndarray, noise: float, seed: int) -> None:
            # The bound is where it can break: the largest curvature is on it.
            hessian = hessian * self.largest / np.linalg.eigvalsh(hessian)[-1]
            start, shocks = jr.split(jr.key(seed))
            first, last = _apart(
                optimizer,
                jnp.asarray(hessian, jnp.float32),
                jr.normal(start, (3,), jnp.float32),
                noise * jr.normal(shocks, (self.steps, 3), jnp.float32),
            )
            assert float(last) <= float(first) * (1 + 1e-4), (
                f"StableOnQuadratics: d'Hd went from {first:.3g} to {last:.3g} in "
                f"{self.steps} steps, for noise of size {noise} and H =\n"
                f"{np.array2string(hessian, precision=4, suppress_small=True)}"
            )

        test()


@eqx.filter_jit
def _apart(
    optimizer: AbstractOptimizer,
    hessian: Float[Array, "n n"],
    start: Float[Array, " n"],
    shocks: Float[Array, "steps n"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    run = lambda p: _descend(optimizer, hessian, p, shocks)
    size = lambda d: matmul(matmul(d, hessian), d)
    return size(start), size(run(start) - run(jnp.zeros_like(start)))


def _descend(
    optimizer: AbstractOptimizer,
    hessian: Float[Array, "n n"],
    start: Float[Array, " n"],
    shocks: Float[Array, "steps n"],
) -> Float[Array, " n"]:
    state = optimizer.init(start)
    arrays, rest = eqx.partition(state, eqx.is_array)

    def body(c: tuple[Array, PyTree], xi: Array) -> tuple[tuple[Array, PyTree], None]:
        p, arrays = c
        state = eqx.combine(arrays, rest)
        value_fn = lambda p: matmul(matmul(0.5 * (p - xi), hessian), p - xi)
        grad = matmul(hessian, p - xi)
        extra = {"value": value_fn(p), "value_fn": value_fn, "grad": grad}
        updates, state = optimizer.update(grad, state, p, **extra)
        return (p + updates, eqx.filter(state, eqx.is_array)), None

    (p, _), _ = jax.lax.scan(body, (start, arrays), shocks)
    return p
