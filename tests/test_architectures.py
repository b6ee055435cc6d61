"""The architectures: how many parameters, what each block computes, what they refuse."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np

from equistar.tasks._architectures._attention import Block


def test_a_causal_block_sees_no_later_position():
    x = jr.normal(jr.key(1), (5, 4))
    changed = x.at[3].add(1.0)
    causal = Block(4, 2, causal=True, key=jr.key(0))
    difference = jnp.abs(causal(x) - causal(changed)).max(axis=1)
    assert np.all(difference[:3] == 0) and np.all(difference[3:] > 0)
    # Without the mask every position sees the change.
    every = Block(4, 2, key=jr.key(0))
    assert np.all(jnp.abs(every(x) - every(changed)).max(axis=1) > 0)
