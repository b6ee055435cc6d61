"""The variance of the meta-gradient against the nominal step size."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._eigh import eigh
from ..analysis import LinearOptimizer, NoisyQuadratic, star_quadratic
from ._base import AbstractExperiment, Claim


class MetaGradientVariance(AbstractExperiment):
    """STAR, figure 2a: a nominal term lowers the meta-gradient's variance by far.

    The trace of the covariance, over seeds, of the gradient of the mean loss with respect
    to the learned matrix P at P = 0, for nominal step sizes across the stable range.
    """

    alphas: int = 25
    seeds: int = 200
    horizons: tuple[int, ...] = (1, 2, 5, 10, 50, 100, 200, 500, 1000)
    seed: int = 0

    def full(self) -> "MetaGradientVariance":
        full = (1, 2, 3, 4, 5, 10, 25, 50, 100, 150, 200, 250, 300, 400)
        horizons = (*full, 500, 600, 700, 800, 900, 1000)
        return dataclasses.replace(self, alphas=50, seeds=500, horizons=horizons)

    def measure(self, say: Callable[[str], None]) -> dict[str, np.ndarray]:
        model = star_quadratic()
        alphas = np.linspace(0, 2 / float(eigh(model.hessian)[0][-1]), self.alphas)
        keys = jr.split(jr.key(self.seed), self.seeds)
        steps = max(self.horizons)
        say(f"{self.alphas} step sizes, {self.seeds} seeds, {steps} steps ...")
        traces = _traces(model, jnp.asarray(alphas), keys, steps)
        horizons = np.array(self.horizons)
        variance = np.asarray(traces, np.float64)[:, horizons - 1]
        return {"alphas": alphas, "horizons": horizons, "variance": variance}

    def claims(self, data: Mapping[str, np.ndarray]) -> list[Claim]:
        alphas, steps = data["alphas"], int(max(data["horizons"]))
        last = data["variance"][:, -1]
        best = int(np.argmin(last))
        highest = data["variance"][best].max()
        return [
            Claim(
                f"the variance has an interior minimum at T = {steps}",
                f"at alpha = {alphas[best]:.3f} of [0, {alphas[-1]:.3f}]",
                0 < best < len(alphas) - 1,
            ),
            _far_below_both_ends(last, best, steps),
            Claim(
                "at the minimum the variance does not grow with the horizon",
                f"{highest:.2g} at its highest, {last[best]:.2g} at T = {steps}",
                last[best] < highest,
            ),
        ]

    def draw(self, figure: Any, data: Mapping[str, np.ndarray]) -> None:
        axes, horizons = figure.add_subplot(), data["horizons"]
        for i, horizon in enumerate(horizons):
            colour = str(0.85 * (1 - i / len(horizons)))
            curve = data["variance"][:, i]
            axes.plot(data["alphas"], curve, color=colour, label=f"T = {horizon}")
        axes.set(yscale="log", xlabel="alpha, the nominal step size")
        axes.set_ylabel("trace of the meta-gradient's covariance")
        figure.legend(loc="outside right center", frameon=False, fontsize=8)


def _far_below_both_ends(variance: np.ndarray, best: int, steps: int) -> Claim:
    orders = np.log10(variance[[0, -1]] / variance[best])
    return Claim(
        f"it is far below both ends at T = {steps} (paper: about 9e-3 inside, 2e8 "
        "at 0, 4e12 at the limit)",
        f"{variance[best]:.2g} inside, {variance[0]:.2g} at 0, {variance[-1]:.2g} at the "
        f"limit: {orders[0]:.1f} and {orders[1]:.1f} orders of magnitude",
        orders.min() > 6,
    )


# In forward mode, so that one run gives the gradient at every horizon.
@eqx.filter_jit
def _traces(
    model: NoisyQuadratic, alphas: Float[Array, " a"], keys: Array, steps: int
) -> Float[Array, "a steps"]:
    n = len(model.start)
    basis = jnp.eye(n * n).reshape(-1, n, n)

    def gradients(alpha: Float[Array, ""], key: PRNGKeyArray) -> Float[Array, "steps m"]:
        init_key, run_key = jr.split(key)

        def body(c: tuple[Array, Array, Array], k: PRNGKeyArray):
            phi, tangents, total = c

            def push(direction: Array, tangent: Array):
                run = lambda p, x: model.step(LinearOptimizer(alpha, p), x, key=k)
                primals = jnp.zeros((n, n)), phi
                return jax.jvp(run, primals, (direction, tangent))

            (phi, _), (tangents, slopes) = jax.vmap(push, out_axes=(None, 0))(
                basis, tangents
            )
            total = total + slopes
            return (phi, tangents, total), total

        phi = model.init(LinearOptimizer(alpha, jnp.zeros((n, n))), key=init_key)
        start = phi, jnp.zeros((n * n, n)), jnp.zeros(n * n)
        _, totals = jax.lax.scan(body, start, jr.split(run_key, steps))
        return totals / jnp.arange(1, steps + 1, dtype=totals.dtype)[:, None]

    def trace(alpha: Float[Array, ""]) -> Float[Array, " steps"]:
        drawn = jax.vmap(lambda k: gradients(alpha, k))(keys)
        return jnp.sum(jnp.var(drawn, axis=0, ddof=1), axis=-1)

    return jax.lax.map(trace, alphas)
