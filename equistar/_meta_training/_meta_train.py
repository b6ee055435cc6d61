"""The outer loop: meta-training of an optimizer, or of any pytree, through an unroll."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from .._devices import all_or_none, any_process, put_on_all_devices
from .._estimators import AbstractEstimator
from .._kinds import as_number, check_count, check_function, check_kind
from .._results import RESULTS
from .._unrolls import AbstractUnroll
from .._warn import warn
from ._checkpoint_file import check_reach
from ._checkpoints import AbstractCheckpoints, NoCheckpoints
from ._faults import FaultWatch
from ._feed import AbstractFeed
from ._interrupts import deferred_interrupts, Interrupts
from ._logger import AbstractLogger, Metrics, NoLogger, stack_metrics, unstack_metrics
from ._meta_step import meta_train_init, MetaTrainState, step_through
from ._mixture import as_mixture, Mixture
from ._outer import default_outer


_Theta = TypeVar("_Theta")

# One for all runs: with another one, of the same numbers, the meta-step compiles again.
_DEFAULT_OUTER = default_outer()


class MetaTrainResult(eqx.Module, Generic[_Theta]):
    """What [`equistar.meta_train`][] returns.

    **Attributes:**

    - `theta`: the meta-trained pytree, of the type that went in.
    - `history`: the metrics of every meta-step, NumPy arrays with one leading axis.
    - `state`: to go on from, with `meta_train_step` and the same `outer`.
    - `result`: a `RESULTS` member.
    """

    theta: _Theta
    history: Metrics
    state: MetaTrainState
    result: RESULTS


def meta_train(
    unroll: AbstractUnroll | AbstractFeed | Mixture,
    estimator: AbstractEstimator,
    theta: _Theta,
    outer: optax.GradientTransformation | None = None,
    *,
    steps: int,
    key: PRNGKeyArray,
    trainable: PyTree = eqx.is_inexact_array,
    logger: Callable[[int, Metrics, Any], object] = NoLogger(),
    checkpoints: AbstractCheckpoints = NoCheckpoints(),
    max_skipped: int | float = 100,
    warn_share: float | int = 0.5,
    throw: bool = True,
) -> MetaTrainResult[_Theta]:
    """Meta-trains `theta`, say a learned optimizer, through an unroll.

    !!! Example

        ```python
        unroll = eqs.InnerTraining(eqs.tasks.digits_mlp())
        star = eqs.STAR(key=jr.key(0))
        result = eqs.meta_train(unroll, eqs.PES(), star, steps=1000, key=jr.key(1))
        star = result.theta
        ```

    **Arguments:**

    - `unroll`: what to differentiate through: an unroll, an [`equistar.Mixture`][] of
        several, or an [`equistar.AbstractFeed`][] whose data change.
    - `estimator`: how, say [`equistar.PES`][].
    - `theta`: the meta-parameters; its inexact arrays are trained.
    - `outer`: any optax optimizer without a line search; by default
        [`equistar.default_outer`][].
    - `steps`: number of meta-steps.
    - `key`: a PRNG key.
    - `trainable`: what of `theta` is trained, as a filter of `equinox.partition`; see
        [`equistar.all_but`][] and [`equistar.only`][]. The rest is held, and not
        perturbed either.
    - `logger`: an [`equistar.AbstractLogger`][], or any function `(step, metrics, theta)`,
        told of every meta-step. If it raises, the run ends, and the meta-step is kept in a
        checkpoint.
    - `checkpoints`: where the run's state is kept, say `Checkpoints("my-run")`: started
        again with the same arguments, the run goes on from there; one that is done
        returns what it has trained. With others it is refused.
    - `max_skipped`: the run stops once this many of its meta-steps, those before a restart
        included, had a gradient that is not finite. It goes on only if more are allowed.
    - `warn_share`: a run warns, once for each stretch of trouble, when more than this share
        of the particles (for pairs: of the pairs) carry no signal, or of their members have
        diverged, smoothed over about 20 meta-steps; with 1 never.
    - `throw`: whether a run that fails raises.

    **Returns:**

    A [`equistar.MetaTrainResult`][]. Ctrl-C ends the run after the meta-step that is
    running, keeps a checkpoint, and returns what has been trained so far, with the result
    `RESULTS.interrupted`; pressed twice, it ends the run at once. A request to terminate
    (SIGTERM, as clusters send it) does the same and then raises `SystemExit`, unless you
    have a handler of your own.

    **Raises:**

    `ValueError` if an argument is not of its kind; `CheckpointError` if the checkpoint is
    of another run, or of more than `steps` meta-steps. If `throw` is true also
    `RuntimeError` if meta-gradients were not finite, and `jax.errors.JaxRuntimeError` if a
    device or another process failed: otherwise the result says so, and what was trained
    until then is returned.
    """
    _check(steps, estimator, checkpoints, max_skipped, warn_share, logger)
    outer = _DEFAULT_OUTER if outer is None else outer
    wanted = "an optax optimizer, say `optax.adamw(1e-3)`"
    check_kind(outer, optax.GradientTransformation, "`outer`", wanted)
    # Once for all steps; in each, only what a feed has brought is still to be placed.
    mixture = put_on_all_devices(as_mixture(unroll))
    state = meta_train_init(mixture, estimator, theta, outer, key=key, trainable=trainable)

    def advance(state: MetaTrainState, done: int) -> tuple[MetaTrainState, Metrics]:
        unrolls = put_on_all_devices(mixture.at(done))
        return step_through(mixture, unrolls, estimator, outer, state, trainable)

    parts = {"unroll": unroll, "estimator": estimator, **_parts_of(theta, trainable)}
    checkpoints = checkpoints.for_run(parts)
    with ExitStack() as held:
        with all_or_none():
            held.enter_context(checkpoints.locked())
        interrupts = held.enter_context(deferred_interrupts())
        state, earlier = checkpoints.restore(state)
        history = [] if earlier is None else unstack_metrics(earlier)
        check_reach(len(history), steps)
        watch = FaultWatch(estimator, len(mixture.feeds), float(warn_share))
        watch.begin(history)
        run = _Run(state, history, max_skipped, watch, logger, checkpoints)
        try:
            result = run.to(steps, advance, interrupts)
        except KeyboardInterrupt:
            run.cut_off()
            if not run.history:
                raise
            result = RESULTS.interrupted
        except jax.errors.JaxRuntimeError as e:
            if throw or not run.history:
                raise
            warn(f"The run ended early: {e}")
            result = RESULTS.process_lost
    if throw and result == RESULTS.no_meta_gradient:
        raise RuntimeError(RESULTS[result])
    return MetaTrainResult(run.state.theta, stack_metrics(run.history), run.state, result)


# Its arrays are compared with those of the state.
def _parts_of(theta: PyTree, trainable: PyTree) -> dict[str, PyTree]:
    trained = jtu.tree_map(lambda x: True, eqx.filter(theta, trainable))
    return {"theta": eqx.filter(theta, eqx.is_array, inverse=True), "trainable": trained}


def _check(
    steps: Any,
    estimator: Any,
    checkpoints: Any,
    max_skipped: Any,
    warn_share: Any,
    logger: Any,
) -> None:
    check_count(steps, "steps")
    number = int | float | np.integer | np.floating
    check_kind(max_skipped, number, "`max_skipped`", "a number, say 100")
    if not max_skipped >= 1:
        raise ValueError(f"`max_skipped` must be at least 1; got {max_skipped}.")
    if not 0 < as_number(warn_share, "`warn_share`", "0.5") <= 1:
        raise ValueError(f"`warn_share` must be above 0 and at most 1; got {warn_share}.")
    if isinstance(logger, type) and issubclass(logger, AbstractLogger):
        check_kind(logger, AbstractLogger, "`logger`")
    check_function(logger, "logger", "lambda step, metrics, theta: print(metrics)")
    check_kind(estimator, AbstractEstimator, "`estimator`", "an estimator, say `PES()`")
    wanted = "NoCheckpoints() or a folder's, say `Checkpoints('my-run')`"
    check_kind(checkpoints, AbstractCheckpoints, "`checkpoints`", wanted)


@dataclass
class _Run:
    """A run as far as it has come."""

    state: MetaTrainState
    history: list[Metrics]
    max_skipped: int | float
    watch: FaultWatch
    logger: Callable[[int, Metrics, Any], object]
    checkpoints: AbstractCheckpoints

    def to(self, steps: int, advance: Callable, interrupts: Interrupts) -> RESULTS:
        """Goes on to so many meta-steps, or to what ends it before."""
        result = RESULTS.no_meta_gradient if self.is_spent() else RESULTS.successful
        while result == RESULTS.successful and len(self.history) < steps:
            # Nothing of a step is kept before its metrics have arrived: where a process
            # has died, the arrays of the step that it missed cannot be read.
            after, metrics = advance(self.state, len(self.history))
            self.history.append(jax.device_get(metrics))
            self.state = after
            last = len(self.history) == steps
            if self.is_spent():
                result = RESULTS.no_meta_gradient
            elif not last and any_process(interrupts.asked):
                result = RESULTS.interrupted
            self.keep(last=last or bool(result != RESULTS.successful))
            self.tell()
        return result

    def tell(self) -> None:
        """Tells the logger of the last meta-step, which is kept if that fails."""
        said = self.watch.look(self.history[-1])
        try:
            with all_or_none():
                if said is not None and jax.process_index() == 0:
                    warn(said)
                self.logger(len(self.history), self.history[-1], self.state.theta)
        except jax.errors.JaxRuntimeError:
            # What a lost process has left cannot be written either.
            raise
        except Exception:
            self.keep(last=True)
            raise

    def is_spent(self) -> bool:
        """Whether it has skipped all the meta-steps that it may."""
        return bool(self.history) and bool(self.history[-1].skipped >= self.max_skipped)

    def cut_off(self) -> None:
        """Ends it where it stands, which may be between a step's metrics and its state."""
        del self.history[int(self.state.step) :]
        if self.history:
            self.keep(last=True)

    def keep(self, *, last: bool) -> None:
        self.checkpoints.save(len(self.history), self.state, self.history, last=last)
