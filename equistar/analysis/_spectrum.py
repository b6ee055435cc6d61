"""The joint spectrum of parameters and optimizer state, on any task."""

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._inner_training import train_init, train_step, TrainState
from .._keys import apart
from .._kinds import as_count
from .._optimizers import AbstractOptimizer
from ..tasks import AbstractTask
from ._balance import balance, ROUNDS
from ._eigenpairs import eigenpairs, leading_eigenpairs, residual_norms
from ._joint_map import (
    check_state,
    is_finite,
    product as joint_product,
    products as joint_products,
)


# Problems up to this size are solved densely: that is exact, and takes no longer than an
# iteration that converges slowly.
_DENSE = 400
# Residuals above this share of an eigenvalue say that it is none.
_TRUSTED = 1e-2
_ROUNDING = 1e-6

# What stays as it is while the state is moved: also its parts that are no numbers, and
# the keys of the minibatches.
_Setting: TypeAlias = tuple[AbstractTask, AbstractOptimizer, PyTree, Array]


class _NotFinite(ValueError):
    """Training has diverged: there is no spectrum."""


class JointSpectrum(eqx.Module):
    """What [`equistar.analysis.joint_spectrum`][] returns.

    **Attributes:**

    - `eigenvalues`: the leading ones, by falling magnitude.
    - `params_share`: for each, the share of its direction's squared norm that lies in the
        parameters; the rest lies in the optimizer's state. It depends on the units that
        the two are held in.
    - `residuals`: $|J v - \\lambda v|$ for each, with $|v| = 1$ in units in which the
        rows of $J$ are of about equal norm.
    - `products`: Jacobian-vector products that were computed.
    - `cost`: their time, in steps of training.
    - `converged`: whether as many eigenvalues as were asked for (or as there are) were
        found, with residuals below a hundredth of them. If not, they are estimates: where
        many are of one magnitude, as under momentum, they cannot be told apart. Where
        directions merge, as at critical damping, rounding by $\\epsilon$ moves eigenvalues
        by $\\sqrt\\epsilon$, which no residual shows.
    """

    eigenvalues: np.ndarray
    params_share: np.ndarray
    residuals: np.ndarray
    products: int
    cost: float
    converged: bool

    @property
    def radius(self) -> float:
        """$\\rho$, the magnitude of the leading eigenvalue."""
        return float(np.abs(self.eigenvalues).max(initial=0))

    @property
    def unstable(self) -> int:
        """How many of the leading eigenvalues are outside the unit circle, by more than
        float32's rounding: where there is no curvature they are 1."""
        return int(np.sum(np.abs(self.eigenvalues) > 1 + _ROUNDING))


def joint_spectrum(
    task: AbstractTask,
    optimizer: AbstractOptimizer,
    state: TrainState,
    *,
    number: int = 6,
    batches: int = 1,
    tolerance: float = 1e-6,
    key: PRNGKeyArray,
) -> JointSpectrum:
    """Leading eigenvalues of a training step, linearised jointly in params and state.

    The Jacobian $J$ of $(\\phi, s) \\mapsto (\\phi', s')$, parameters and the
    floating-point part of the optimizer's state, is never formed: its products with
    vectors come from forward mode, and the eigenvalues from ARPACK's implicitly restarted
    Arnoldi iteration, in balanced units. The derivative of an update with respect to a
    second moment of 1e-12 can be huge, and in the state's own units the iteration would
    then return spurious eigenvalues. Step counters and whatever else is an integer are
    frozen at their values, and so are time inputs: the map is that of one step repeated. A
    radius above 1 says that small disturbances grow where training stands, on this
    minibatch; it does not say that training diverges. Where an update has no derivative, as
    Adam's at a second moment of exactly zero, it counts as constant.

    **Arguments:**

    - `task`: what is trained.
    - `optimizer`: learned, or an [`equistar.OptaxOptimizer`][].
    - `state`: where training stands, from `train_init` and `train_step`.
    - `number`: how many eigenvalues.
    - `batches`: minibatches whose mean loss is taken; more say more of the expected loss.
    - `tolerance`: relative, of the iteration.
    - `key`: the minibatches are drawn with it.

    **Returns:**

    A [`equistar.analysis.JointSpectrum`][].

    **Raises:**

    `ValueError` if `number` or `batches` is below 1, the state is of another task or
    optimizer, or it or its update is not finite.
    """
    number = as_count(number, "number")
    batches = as_count(batches, "batches")
    check_state(task, optimizer, state)
    arrays, rest = eqx.partition(state, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(arrays)
    setting = task, optimizer, rest, jr.split(key, batches)
    _check_finite(setting, flat, unravel)

    def raw(v: np.ndarray) -> np.ndarray:
        image = joint_product(*setting, flat, jnp.asarray(v, flat.dtype), unravel)
        return np.asarray(image, np.float64)

    split = ravel_pytree(arrays.params)[0].size
    sizes = _sizes(np.asarray(flat, np.float64), split)
    units = balance(raw, sizes, key=apart(key, "unit"))
    product = lambda v: raw(v * units) / units
    if flat.size <= max(_DENSE, number + 2):
        identity = jnp.eye(flat.size, dtype=flat.dtype)
        columns = np.asarray(joint_products(*setting, flat, identity, unravel), np.float64)
        found = eigenpairs(columns.T * units[None] / units[:, None])
    else:
        start_key = apart(key, "iter")
        found = leading_eigenpairs(product, flat.size, number, tolerance, start_key)
    order = np.argsort(-np.abs(found.values), kind="stable")[:number]
    values, vectors = found.values[order], found.vectors[:, order]
    residuals = residual_norms(product, values, vectors)
    # Of what is zero to rounding nothing more can be known.
    least = np.finfo(flat.dtype).eps * np.max(np.abs(values), initial=0)
    bound = np.maximum(_TRUSTED * np.abs(values), least)
    converged = found.converged and bool(np.all(residuals <= bound))
    directions = np.abs(vectors * units[:, None]) ** 2
    share = directions[:split].sum(0) / directions.sum(0)
    # Two for the residual of each.
    products = found.products + ROUNDS + 2 * len(values)
    cost = products * _relative_cost(task, optimizer, state, flat, product, key)
    return JointSpectrum(values, share, residuals, products, cost, converged)


def _check_finite(setting: _Setting, flat: Float[Array, " n"], unravel: Callable) -> None:
    if not bool(jnp.all(jnp.isfinite(flat))):
        raise _NotFinite(
            "The parameters or the optimizer's state are not finite: training has "
            "diverged before this point, so there is no spectrum to compute."
        )
    if not bool(is_finite(*setting, flat, unravel)):
        raise _NotFinite(
            "The update at this state is not finite, so it has no derivative: look at the "
            "loss, its gradient and the optimizer's weights there."
        )


# Each number of the state in units of its own size, to start from.
def _sizes(flat: np.ndarray, split: int) -> np.ndarray:
    size = np.abs(flat[split:])
    floor = np.finfo(np.float32).eps ** 2
    return np.concatenate([np.ones(split), np.where(size > floor, size, 1.0)])


def _relative_cost(
    task: AbstractTask,
    optimizer: AbstractOptimizer,
    state: TrainState,
    flat: Float[Array, " n"],
    product: Callable[[np.ndarray], np.ndarray],
    key: PRNGKeyArray,
) -> float:
    """The time of a product in steps of training, medians of three."""
    step = lambda: jax.block_until_ready(_steps(task, optimizer, state, 0, 1, key))
    direction = np.ones(flat.size)
    step()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(3):
        for run, taken in zip((step, lambda: product(direction)), seconds, strict=True):
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
    return float(np.median(seconds[1]) / np.median(seconds[0]))


def spectrum_along_training(
    task: AbstractTask,
    optimizer: AbstractOptimizer,
    steps: Sequence[int],
    *,
    number: int = 6,
    batches: int = 1,
    tolerance: float = 1e-6,
    key: PRNGKeyArray,
) -> list[JointSpectrum]:
    """The joint spectrum at chosen steps of one training run.

    **Arguments:**

    - `steps`: increasing numbers of updates, say 0, 10, 100, 1000.
    - the others as for [`equistar.analysis.joint_spectrum`][].

    **Returns:**

    One [`equistar.analysis.JointSpectrum`][] for each, fewer if training diverges.

    **Raises:**

    `ValueError` if the steps do not increase, or as `joint_spectrum`.
    """
    at = np.asarray(steps)
    whole = at.ndim == 1 and at.size > 0 and np.issubdtype(at.dtype, np.integer)
    if not whole or at[0] < 0 or np.any(np.diff(at) <= 0):
        raise ValueError(
            "`steps` must be a list of increasing whole numbers from 0 up, say [0, 10, "
            f"100]; got {steps}."
        )
    if at[-1] >= 2**31:
        raise ValueError(f"`steps` must be below 2**31; got {at[-1]}.")
    init_key, data_key, batch_key = jr.split(key, 3)
    state = eqx.filter_jit(train_init)(task, optimizer, key=init_key)
    done, spectra = 0, []
    for step in at:
        state = _steps(task, optimizer, state, done, int(step) - done, data_key)
        done = int(step)
        settings = {"number": number, "batches": batches, "tolerance": tolerance}
        try:
            found = joint_spectrum(task, optimizer, state, key=batch_key, **settings)
        except _NotFinite:
            break
        spectra.append(found)
    return spectra


def _steps(
    task: AbstractTask,
    optimizer: AbstractOptimizer,
    state: TrainState,
    done: int,
    count: int,
    key: PRNGKeyArray,
) -> TrainState:
    # As arrays, so that one program serves all numbers of steps.
    return _advance(task, optimizer, state, jnp.asarray(done), jnp.asarray(count), key)


@eqx.filter_jit
def _advance(
    task: AbstractTask,
    optimizer: AbstractOptimizer,
    state: TrainState,
    done: Int[Array, ""],
    count: Int[Array, ""],
    key: PRNGKeyArray,
) -> TrainState:
    arrays, rest = eqx.partition(state, eqx.is_array)

    def body(n: Int[Array, ""], arrays: PyTree[Array]) -> PyTree[Array]:
        state = eqx.combine(arrays, rest)
        after, _ = train_step(task, optimizer, state, key=jr.fold_in(key, done + n))
        return eqx.filter(after, eqx.is_array)

    return eqx.combine(jax.lax.fori_loop(0, count, body, arrays), rest)
