"""Whether back-propagated meta-gradients explode, vanish, or are silently zero."""

import enum
import itertools
import os
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree
from rich.table import Table

from .._estimators import AbstractRematerialisation, learned, WithinMemory
from .._kinds import as_count, check_key
from .._text import as_text
from .._unrolls import AbstractObjective, AbstractUnroll, check_is_unroll, MeanLoss
from ..plot import save_figure


class Health(enum.Enum):
    """What becomes of the meta-gradient as the horizon grows."""

    HEALTHY = "healthy"
    EXPLODING = "exploding"
    VANISHING = "vanishing"
    SILENTLY_ZERO = "silently zero"


# Faster than this power of the horizon counts as exponential: a polynomial growth, which
# is honest where later losses depend on theta through every step, is far below it.
_POWER = 4.0


class MetaGradientHealth(eqx.Module):
    """What [`equistar.analysis.meta_gradient_health`][] returns; `print` shows a table.

    Numbers are shares of all entries of all particles' gradients, or quantiles over
    particles.

    **Attributes:**

    - `horizons`: steps that were differentiated through.
    - `magnitude`: the lower quartile, median and upper quartile of a gradient's Euclidean
        norm, of its finite entries; shape (horizons, 3).
    - `zero`, `infinite`, `nan`: shares of entries that are exactly so.
    - `verdicts`: a [`equistar.analysis.Health`][] for each horizon.
    - `verdict`: the first one that is not healthy, or healthy.
    - `turns_at`: its horizon, or `None`.
    """

    horizons: np.ndarray
    magnitude: np.ndarray
    zero: np.ndarray
    infinite: np.ndarray
    nan: np.ndarray
    verdicts: tuple[Health, ...]

    @property
    def verdict(self) -> Health:
        bad = [v for v in self.verdicts if v != Health.HEALTHY]
        return bad[0] if bad else Health.HEALTHY

    @property
    def turns_at(self) -> int | None:
        for horizon, verdict in zip(self.horizons, self.verdicts, strict=True):
            if verdict != Health.HEALTHY:
                return int(horizon)
        return None

    def table(self) -> Table:
        """As a table for a `rich.console.Console`."""
        turn = "" if self.turns_at is None else f" from {self.turns_at} steps on"
        table = Table(title=f"Back-propagated meta-gradient: {self.verdict.value}{turn}")
        headings = "horizon", "|gradient|, median", "zero", "infinite", "NaN"
        for heading in headings:
            table.add_column(heading, justify="right")
        table.add_column("verdict")
        shares = zip(self.zero, self.infinite, self.nan, strict=True)
        rows = zip(self.horizons, self.magnitude, shares, self.verdicts, strict=True)
        for horizon, magnitude, share, verdict in rows:
            cells = [f"{x:.1%}" for x in share]
            table.add_row(str(horizon), f"{magnitude[1]:.3g}", *cells, verdict.value)
        return table

    def __str__(self) -> str:
        return as_text(self.table(), width=100)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws magnitude and shares against the horizon as a PNG file."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        low, middle, high = np.where(self.magnitude > 0, self.magnitude, np.nan).T
        left.plot(self.horizons, middle, marker="o")
        left.fill_between(self.horizons, low, high, alpha=0.25)
        left.set(xscale="log", yscale="log", xlabel="horizon", title="|gradient|")
        for name in ("zero", "infinite", "nan"):
            right.plot(self.horizons, getattr(self, name), marker="o", label=name)
        right.set(xscale="log", xlabel="horizon", title="share of entries")
        right.legend(frameon=False)
        figure.suptitle(f"Back-propagated meta-gradient: {self.verdict.value}")
        save_figure(figure, path)


def meta_gradient_health(
    unroll: AbstractUnroll,
    theta: PyTree,
    horizons: Sequence[int],
    *,
    particles: int = 16,
    objective: AbstractObjective = MeanLoss(),
    remat: AbstractRematerialisation = WithinMemory(),
    key: PRNGKeyArray,
) -> MetaGradientHealth:
    """Back-propagates through episodes of growing length, and judges the gradients.

    The verdict at a horizon is

    - *exploding* if entries are infinite or NaN, or if, at any shorter horizon, the
        magnitude has grown by more than the fourth power of the horizon;
    - *vanishing* if it has shrunk by as much since the last horizon;
    - *silently zero* if more entries are exactly zero than at a shorter horizon, or all of
        them (except at a horizon of 1: a first loss need not depend on theta).

    Growth is also measured at halves of the horizons, because it ends once losses are at
    their task's bound. NaN counts as exploding, although dividing numbers that have
    underflowed gives it as well. One program serves all horizons.

    **Arguments:**

    - `unroll`: what to differentiate.
    - `theta`: the meta-parameters.
    - `horizons`: increasing numbers of steps, say 1, 3, 10, 30, 100.
    - `particles`: episodes, each with its own key.
    - `objective`: of an episode.
    - `remat`: as for [`equistar.FullBackprop`][].
    - `key`: a PRNG key.

    **Returns:**

    A [`equistar.analysis.MetaGradientHealth`][].

    **Raises:**

    `ValueError` if `unroll` is no unroll, `theta` has no inexact array or a complex one,
    the horizons are not increasing positive whole numbers, `particles` is not a whole
    number of at least 1, or `key` no PRNG key.

    ??? cite

        ```bibtex
        @inproceedings{wang2021guarantees,
            title={Guarantees for Tuning the Step Size using a Learning-to-Learn Approach},
            author={Wang, Xiang and Yuan, Shuai and Wu, Chenwei and Ge, Rong},
            booktitle={International Conference on Machine Learning},
            year={2021},
            eprint={2006.16495},
        }
        ```
    """
    check_is_unroll(unroll)
    learned(theta)
    check_key(key)
    particles = as_count(particles, "particles")
    steps = np.asarray(horizons)
    whole = np.issubdtype(steps.dtype, np.integer) and steps.ndim == 1 and steps.size > 0
    if not whole or np.any(np.diff(steps, prepend=0) <= 0):
        raise ValueError(
            "`horizons` must be a list of increasing whole numbers from 1 up, say "
            f"[1, 10, 100]; got {horizons}."
        )
    keys, grid = jr.split(key, particles), _with_halves(steps)
    longest = int(steps[-1])
    gradients = np.stack(
        [
            _gradients(unroll, theta, jnp.asarray(n), keys, longest, objective, remat)
            for n in grid
        ]
    ).astype(np.float64)
    magnitude = _quartiles(gradients)
    asked = np.isin(grid, steps)
    share = lambda mask: mask[asked].reshape(len(steps), -1).mean(1)
    zero, infinite = share(gradients == 0), share(np.isinf(gradients))
    nan = share(np.isnan(gradients))
    exploded = _exploded(grid, magnitude[:, 1])[asked]
    magnitude = magnitude[asked]
    verdicts = _verdicts(steps, magnitude[:, 1], zero, infinite + nan, exploded)
    return MetaGradientHealth(steps, magnitude, zero, infinite, nan, verdicts)


# Between a horizon and the one before it, its half, the half of that and so on.
def _with_halves(steps: np.ndarray) -> np.ndarray:
    grid = set(steps.tolist())
    for before, n in itertools.pairwise([1, *steps.tolist()]):
        while (n := n // 2) > before:
            grid.add(n)
    return np.array(sorted(grid))


def _quartiles(
    gradients: Float[np.ndarray, "horizons particles n"],
) -> Float[np.ndarray, "horizons 3"]:
    finite = np.isfinite(gradients)
    # Squares of small numbers would underflow, and of large ones overflow.
    size = np.abs(np.where(finite, gradients, 0)).max(-1, keepdims=True)
    scaled = np.where(finite, gradients, 0) / np.where(size > 0, size, 1)
    norms = size[..., 0] * np.sqrt((scaled**2).sum(-1))
    norms = np.where(finite.any(-1), norms, np.nan)
    return np.quantile(norms, [0.25, 0.5, 0.75], axis=1).T


# Growth beyond all before, so that a gradient that comes back from zero is none.
def _exploded(grid: np.ndarray, magnitude: np.ndarray) -> np.ndarray:
    largest = np.fmax.accumulate(magnitude)
    powers = [0.0]
    for i in range(1, len(grid)):
        growth = magnitude[i] / largest[i - 1] if largest[i - 1] > 0 else 1.0
        powers.append(np.log(max(growth, 1.0)) / np.log(grid[i] / grid[i - 1]))
    return np.logical_or.accumulate(np.array(powers) > _POWER)


def _verdicts(
    steps: np.ndarray,
    magnitude: np.ndarray,
    zero: np.ndarray,
    bad: np.ndarray,
    exploded: np.ndarray,
) -> tuple[Health, ...]:
    verdicts = []
    for i in range(len(steps)):
        growth = 0.0
        if i and magnitude[i] > 0 and magnitude[i - 1] > 0:
            growth = np.log(magnitude[i] / magnitude[i - 1])
            growth /= np.log(steps[i] / steps[i - 1])
        silent = zero[i] > zero[:i].min(initial=1) or magnitude[i] == 0
        # At a horizon of 1 zeros may be right: a first loss does not depend on theta.
        if steps[i] > 1 and silent and not bad[i]:
            verdicts.append(Health.SILENTLY_ZERO)
        elif bad[i] or exploded[i]:
            verdicts.append(Health.EXPLODING)
        elif growth < -_POWER:
            verdicts.append(Health.VANISHING)
        else:
            verdicts.append(Health.HEALTHY)
    return tuple(verdicts)


# The horizon is an argument, so that one program serves all; steps beyond it are skipped.
@eqx.filter_jit
def _gradients(
    unroll: AbstractUnroll,
    theta: PyTree,
    horizon: Int[Array, ""],
    keys: Array,
    longest: int,
    objective: AbstractObjective,
    remat: AbstractRematerialisation,
) -> Float[Array, "particles n"]:
    arrays, rest = eqx.partition(theta, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(arrays)
    init = jax.vmap(lambda f, k: unroll.init(eqx.combine(unravel(f), rest), key=k))
    step = jax.vmap(lambda f, c, k: unroll.step(eqx.combine(unravel(f), rest), c, key=k))
    value = jax.vmap(lambda l: objective.episode(l, horizon, horizon.astype(l.dtype)))

    def total(flat: Float[Array, "particles n"]) -> Float[Array, ""]:
        def body(carry: PyTree[Array], t: Array) -> tuple[PyTree[Array], Array]:
            step_keys = jax.vmap(lambda k: jr.fold_in(k, t))(keys)
            run = lambda c: step(flat, c, step_keys)
            losses = jax.eval_shape(run, carry)[1]
            skip = lambda c: (c, jnp.zeros(losses.shape, losses.dtype))
            return lax.cond(t < horizon, run, skip, carry)

        # Keys of the steps are folded from 0 up, that of the start from the top.
        first = jax.vmap(lambda k: jr.fold_in(k, longest))(keys)
        _, losses = remat.scan(body, init(flat, first), jnp.arange(longest))
        return jnp.sum(value(losses.T))

    return jax.grad(total)(jnp.broadcast_to(flat, (len(keys), len(flat))))
