"""The outer loop: meta-training of an optimizer, or of any pytree, through an unroll."""

import equinox as eqx
import jax
import optax
from jaxtyping import PRNGKeyArray, PyTree

from ._checkpoint_file import check_reach
from ._checkpoints import AbstractCheckpoints, NoCheckpoints
from ._devices import any_process, replicate
from ._estimators import AbstractEstimator
from ._feed import AbstractFeed
from ._interrupts import deferred_interrupts
from ._kinds import check_count, check_kind
from ._logger import AbstractLogger, Metrics, NoLogger, stack_metrics, unstack_metrics
from ._meta_step import meta_train_init, MetaTrainState, step_through
from ._mixture import as_mixture, Mixture
from ._outer import default_outer
from ._results import RESULTS
from ._unroll import AbstractUnroll


class MetaTrainResult(eqx.Module):
    """What [`equistar.meta_train`][] returns.

    **Attributes:**

    - `theta`: the meta-trained pytree, of the type that went in.
    - `history`: the metrics of every meta-step, arrays with one leading axis.
    - `state`: to go on from, with `meta_train_step`.
    - `result`: a `RESULTS` member.
    """

    theta: PyTree
    history: Metrics
    state: MetaTrainState
    result: RESULTS


def meta_train(
    unroll: AbstractUnroll | AbstractFeed | Mixture,
    estimator: AbstractEstimator,
    theta: PyTree,
    outer: optax.GradientTransformation | None = None,
    *,
    steps: int,
    key: PRNGKeyArray,
    trainable: PyTree = eqx.is_inexact_array,
    logger: AbstractLogger = NoLogger(),
    checkpoints: AbstractCheckpoints = NoCheckpoints(),
    max_skipped: int | float = 100,
    throw: bool = True,
) -> MetaTrainResult:
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
    - `outer`: any optax optimizer; by default [`equistar.default_outer`][].
    - `steps`: number of meta-steps.
    - `key`: a PRNG key.
    - `trainable`: what of `theta` is trained, as a filter of `equinox.partition`; see
        [`equistar.all_but`][] and [`equistar.only`][]. The rest is held, and not
        perturbed either.
    - `logger`: told of every meta-step.
    - `checkpoints`: where the run's state is kept, say `Checkpoints("my-run")`: started
        again with the same arguments, the run goes on from there; one that is done
        returns what it has trained.
    - `max_skipped`: the run stops after so many meta-steps with a non-finite gradient,
        and goes on from a checkpoint only if more are allowed.
    - `throw`: whether a run that fails raises.

    **Returns:**

    A [`equistar.MetaTrainResult`][]. Ctrl-C ends the run after the meta-step that is
    running, keeps a checkpoint, and returns what has been trained so far, with the result
    `RESULTS.interrupted`; pressed twice, it ends the run at once.

    **Raises:**

    `ValueError` if an argument is not of its kind; `CheckpointError` if the checkpoint is
    of another run, or of more than `steps` meta-steps. If `throw` is true also
    `RuntimeError` if meta-gradients were not finite, and `jax.errors.JaxRuntimeError` if a
    device or another process failed: otherwise the result says so, and what was trained
    until then is returned.
    """
    check_count(steps, "steps")
    if not max_skipped >= 1:
        raise ValueError(f"`max_skipped` must be at least 1; got {max_skipped}.")
    check_kind(estimator, AbstractEstimator, "`estimator`", "an estimator, say `PES()`")
    wanted = "NoCheckpoints() or a folder's, say `Checkpoints('my-run')`"
    check_kind(checkpoints, AbstractCheckpoints, "`checkpoints`", wanted)
    outer = default_outer() if outer is None else outer
    wanted = "an optax optimizer, say `optax.adamw(1e-3)`"
    check_kind(outer, optax.GradientTransformation, "`outer`", wanted)
    # Once for all steps; in each, only what a feed has brought is still to be placed.
    mixture = replicate(as_mixture(unroll))
    state = meta_train_init(mixture, estimator, theta, outer, key=key, trainable=trainable)
    result = RESULTS.successful
    with checkpoints.locked(), deferred_interrupts() as interrupts:
        state, earlier = checkpoints.restore(state)
        history = [] if earlier is None else unstack_metrics(earlier)
        check_reach(len(history), steps)
        spent = lambda: bool(history) and history[-1].skipped >= max_skipped
        if spent():
            result = RESULTS.no_meta_gradient
        begin = steps if spent() else len(history)
        keep = lambda *, last: checkpoints.save(len(history), state, history, last=last)
        try:
            for step in range(begin + 1, steps + 1):
                unrolls = replicate(mixture.at(step - 1))
                # Nothing of a step is kept before its metrics have arrived: where a process
                # has died, the arrays of the step that it missed cannot be read.
                after, metrics = step_through(
                    mixture, unrolls, estimator, outer, state, trainable
                )
                history.append(jax.device_get(metrics))
                state = after
                if spent():
                    result = RESULTS.no_meta_gradient
                elif step < steps and any_process(interrupts.asked):
                    result = RESULTS.interrupted
                stop = bool(result != RESULTS.successful)
                keep(last=stop or step == steps)
                logger(step, history[-1], state.theta)
                if stop:
                    break
        except KeyboardInterrupt:
            # It may have come between a step's metrics and its state.
            del history[int(state.step) :]
            if not history:
                raise
            keep(last=True)
            result = RESULTS.interrupted
        except jax.errors.JaxRuntimeError:
            if throw or not history:
                raise
            result = RESULTS.process_lost
    if throw and result == RESULTS.no_meta_gradient:
        raise RuntimeError(RESULTS[result])
    return MetaTrainResult(state.theta, stack_metrics(history), state, result)
