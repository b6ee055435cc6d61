"""Tasks made of another task: its weights, its gradient or its precision changed."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._keys import apart
from .._kinds import as_count, as_number, check_key, check_kind
from ._base import AbstractTask, Split


class Reparametrised(AbstractTask):
    """A task whose weights have other units, one for each parameter tensor.

    $$l'(q) = l(s \\odot q), \\qquad \\nabla l'(q) = s \\odot \\nabla l(s \\odot q)$$

    Each scale $s$ is drawn log-uniformly, at construction. An optimizer that is
    meta-trained on such tasks learns not to rely on the sizes of weights and gradients.

    **Attributes:**

    - `task`: the original.
    - `scales`: $s$, a number for each tensor of the parameters.
    """

    task: AbstractTask
    scales: PyTree[Float[Array, ""]]

    def __init__(
        self,
        task: AbstractTask,
        minimum: float = 1e-3,
        maximum: float = 1e3,
        *,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `task`: the original.
        - `minimum`, `maximum`: between which each scale is drawn, log-uniformly.
        - `key`: the scales are drawn with it.

        **Raises:**

        `ValueError` if `task` is not a task, `key` no key, or unless 0 < `minimum` <=
        `maximum`, both finite.
        """
        _check_task(task)
        check_key(key)
        if not 0 < minimum <= maximum < math.inf:
            raise ValueError(
                "Scales need `0 < minimum <= maximum`, both finite; got "
                f"{minimum} and {maximum}."
            )
        params = jax.eval_shape(lambda: task.init(key=jr.key(0)))
        leaves, structure = jtu.tree_flatten(params)
        low, high = math.log(minimum), math.log(maximum)
        draws = jnp.exp(jr.uniform(key, (len(leaves),), minval=low, maxval=high))
        scales = [s.astype(p.dtype) for s, p in zip(draws, leaves, strict=True)]
        self.task = task
        self.scales = jtu.tree_unflatten(structure, scales)

    @property
    def loss_bounds(self) -> tuple[float, float]:
        return self.task.loss_bounds

    def init(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        return jtu.tree_map(jnp.divide, self.task.init(key=key), self.scales)

    def original(self, params: PyTree[Array]) -> PyTree[Array]:
        """The parameters of the original task, $s \\odot q$."""
        scaled = lambda p, s: p * s.astype(p.dtype)
        return jtu.tree_map(scaled, params, self.scales)

    def loss(
        self, params: PyTree[Array], *, key: PRNGKeyArray, split: Split = Split.TRAIN
    ) -> Float[Array, ""]:
        return self.task.loss(self.original(params), key=key, split=split)


class LowPrecision(AbstractTask):
    """A task that computes in low precision, while its parameters keep their dtype.

    Parameters are rounded before the loss is computed. Its value and gradient have the
    parameters' own dtype.
    """

    task: AbstractTask
    dtype: np.dtype = eqx.field(static=True)

    def __init__(self, task: AbstractTask, dtype: type = jnp.bfloat16):
        """**Arguments:**

        - `task`: the original.
        - `dtype`: of floating-point numbers, to compute in.

        **Raises:**

        `ValueError` if `task` is not a task, or `dtype` not of floating-point numbers.
        """
        _check_task(task)
        self.task = task
        self.dtype = _floating(dtype)

    @property
    def loss_bounds(self) -> tuple[float, float]:
        return self.task.loss_bounds

    def init(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        return self.task.init(key=key)

    def loss(
        self, params: PyTree[Array], *, key: PRNGKeyArray, split: Split = Split.TRAIN
    ) -> Float[Array, ""]:
        rounded = jtu.tree_map(lambda p: p.astype(self.dtype), params)
        loss = self.task.loss(rounded, key=key, split=split)
        return loss.astype(jnp.result_type(*jtu.tree_leaves(params)))


class ESGradient(AbstractTask):
    """A task whose gradient is an antithetic evolution-strategies estimate.

    $$\\hat g = \\frac1n \\sum_{i=1}^n
    \\frac{l(p + \\sigma \\epsilon_i) - l(p - \\sigma \\epsilon_i)}{2 \\sigma} \\epsilon_i,
    \\qquad \\epsilon_i \\sim N(0, I)$$

    All $2n$ losses are on the same minibatch. Over the draws, $\\hat g$ has the mean
    $\\nabla_p E_\\epsilon[l(p + \\sigma \\epsilon)]$. The loss itself is that of the
    original; the estimate is computed only if the loss is differentiated. A derivative of
    the gradient is that of $\\hat g$, so that meta-gradients by back-propagation belong to
    the training that takes place. See [`equistar.FullES`][] for the source.
    """

    task: AbstractTask
    sigma: float = eqx.field(static=True)
    pairs: int = eqx.field(static=True)

    def __init__(self, task: AbstractTask, sigma: float = 0.01, pairs: int = 1):
        """**Arguments:**

        - `task`: the original.
        - `sigma`: $\\sigma$, the standard deviation of the perturbations.
        - `pairs`: $n$.

        **Raises:**

        `ValueError` if `task` is not a task, `sigma` is not one positive and finite number,
        or `pairs` is below 1.
        """
        _check_task(task)
        pairs = as_count(pairs, "pairs")
        sigma = as_number(sigma, "`sigma`", "0.01")
        if not 0 < sigma < math.inf:
            raise ValueError(f"`sigma` must be positive and finite; got {sigma}.")
        self.task = task
        self.sigma = sigma
        self.pairs = pairs

    @property
    def loss_bounds(self) -> tuple[float, float]:
        return self.task.loss_bounds

    def init(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        return self.task.init(key=key)

    def loss(
        self, params: PyTree[Array], *, key: PRNGKeyArray, split: Split = Split.TRAIN
    ) -> Float[Array, ""]:
        return _es_loss(params, wrapper=self, key=key, split=split)


def _floating(dtype: Any) -> np.dtype:
    try:
        # NumPy takes `None` for float64.
        if dtype is not None and jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
            return jnp.dtype(dtype)
    except TypeError:
        pass
    raise ValueError(
        f"`dtype` must be of floating-point numbers, say `jnp.bfloat16`; got {dtype!r:.80}."
    )


def _check_task(task: AbstractTask) -> None:
    check_kind(task, AbstractTask, "`task`", "a task, say `digits_mlp()`")


# Not `stop_gradient(g) @ (p - stop_gradient(p))`: that costs the losses of all the pairs
# where only the value is wanted, and hides how g depends on p from a second derivative.
@eqx.filter_custom_jvp
def _es_loss(
    params: PyTree[Array], *, wrapper: ESGradient, key: PRNGKeyArray, split: Split
) -> Float[Array, ""]:
    return wrapper.task.loss(params, key=key, split=split)


@_es_loss.def_jvp
def _es_loss_jvp(
    primals: tuple[PyTree[Array]],
    tangents: tuple[PyTree[Array]],
    *,
    wrapper: ESGradient,
    key: PRNGKeyArray,
    split: Split,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    (params,), (moved,) = primals, tangents
    estimate = _es_gradient(params, wrapper, key, split)
    value = _es_loss(params, wrapper=wrapper, key=key, split=split)

    # A leaf that is not differentiated has the tangent None.
    def product(g: Array, t: Array | None) -> Float[Array, ""] | None:
        return None if t is None else jnp.sum(g * t).astype(value.dtype)

    products = jtu.tree_leaves(jtu.tree_map(product, estimate, moved))
    return value, jnp.sum(jnp.stack(products))


def _es_gradient(
    params: PyTree[Array], wrapper: ESGradient, key: PRNGKeyArray, split: Split
) -> PyTree[Array]:
    centre, unravel = ravel_pytree(params)
    # The loss has `key` for itself, as in the original.
    noise_key = apart(key, "esgr")
    noise = jr.normal(noise_key, (wrapper.pairs, *centre.shape), centre.dtype)
    loss = lambda flat: wrapper.task.loss(unravel(flat), key=key, split=split)

    def slope(noise: Float[Array, " n"]) -> Float[Array, ""]:
        move = wrapper.sigma * noise
        return (loss(centre + move) - loss(centre - move)) / (2 * wrapper.sigma)

    slopes = jax.vmap(slope)(noise).astype(centre.dtype)
    return unravel(jnp.mean(slopes[:, None] * noise, axis=0))
