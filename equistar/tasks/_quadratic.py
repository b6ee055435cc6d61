"""The noisy quadratic model."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._kinds import as_number
from ._base import AbstractTask, Split


class Quadratic(AbstractTask):
    """The diagonal noisy quadratic $l(p) = \\frac12 \\sum_i h_i (p_i - \\xi_i)^2$.

    $\\xi$ is drawn from $N(0, s^2 I)$ at each step; parameters start from $N(0, I)$.
    The eigenvalues $h$ and $s$ are arrays: of several tasks, both are stacked.
    """

    curvature: Float[Array, " n"]
    noise: Float[Array, ""]
    loss_bounds: tuple[float, float] = eqx.field(static=True)

    def __init__(
        self,
        curvature: Float[Array, " n"],
        noise: float = 0.0,
        loss_bounds: tuple[float, float] = (0.0, 1e6),
    ):
        """**Arguments:**

        - `curvature`: the eigenvalues $h$ of the Hessian.
        - `noise`: $s$, the standard deviation of the optimum.
        - `loss_bounds`: as for [`equistar.tasks.AbstractTask`][].

        **Raises:**

        `ValueError` if the curvature is no vector of finite numbers of at least 0, or the
        noise is not finite and at least 0.
        """
        self.curvature = checked_curvature(curvature)
        # An argument of programs, so that tasks of other noise share them.
        self.noise = jnp.array(checked_noise(noise), jnp.zeros(()).dtype)
        self.loss_bounds = loss_bounds

    def init(self, *, key: PRNGKeyArray) -> Float[Array, " n"]:
        return jr.normal(key, self.curvature.shape, self.curvature.dtype)

    def loss(
        self,
        params: Float[Array, " n"],
        *,
        key: PRNGKeyArray,
        split: Split = Split.TRAIN,
    ) -> Float[Array, ""]:
        noise = self.noise.astype(params.dtype)
        optimum = noise * jr.normal(key, params.shape, params.dtype)
        curvature = self.curvature.astype(params.dtype)
        return 0.5 * jnp.sum(curvature * (params - optimum) ** 2)


def checked_noise(noise: float) -> float:
    """A standard deviation; a `ValueError` if it is none."""
    deviation = as_number(noise, "`noise`", "0.1")
    if not 0 <= deviation < math.inf:
        raise ValueError(f"`noise` must be finite and at least 0; got {noise}.")
    return deviation


def checked_curvature(curvature: Any) -> Float[Array, " n"]:
    """Eigenvalues in floating point; a `ValueError` if they are none of a convex loss."""
    try:
        values = jnp.asarray(curvature)
    except (TypeError, ValueError) as e:
        raise ValueError(
            "`curvature` must be a vector of eigenvalues, say `jnp.logspace(-2, 0, 16)`; "
            f"got {curvature!r:.80}."
        ) from e
    if values.ndim != 1 or values.size == 0 or jnp.iscomplexobj(values):
        raise ValueError(
            "`curvature` must be a vector of eigenvalues, say `jnp.logspace(-2, 0, 16)`; "
            f"got shape {values.shape} and dtype {values.dtype}."
        )
    if not jnp.issubdtype(values.dtype, jnp.floating):
        values = values.astype(jnp.zeros(()).dtype)
    # Inside of jit the values cannot be seen.
    known = not isinstance(values, jax.core.Tracer)
    if known and not jnp.all((values >= 0) & (values < jnp.inf)):
        raise ValueError(
            "`curvature` must be finite and at least 0: below, the loss has no minimum."
        )
    return values
