"""Scratch memory of one compiled update, in units of the tensor's own bytes.

    python benchmarks/scratch.py

Nothing runs: the sizes are those of the compiled program's memory analysis. The state is
donated and returned first, as in `benchmarks/update.py`.
"""

import argparse

import jax
import jax.random as jr

import equistar as eqs


TENSORS = [
    ((1024, 1024), "float32"),
    ((4096, 4096), "float32"),
    ((50257, 768), "float32"),
    ((1000, 1049), "float32"),
    ((1 << 20,), "float32"),
    ((3, 3, 256, 256), "float32"),
    ((4096, 64), "float32"),
    ((4096, 16), "float32"),
    ((4096, 4), "float32"),
    ((1024, 1024), "bfloat16"),
    ((1 << 20,), "bfloat16"),
]
OPTIMIZERS = {
    "STAR": lambda key: eqs.STAR(key=key),
    "AdaptiveSTAR": lambda key: eqs.AdaptiveSTAR(key=key),
}


def scratch(optimizer, shape, dtype):
    """Bytes of scratch per byte of a tensor, of its update."""
    param = jax.ShapeDtypeStruct(shape, dtype)
    state = jax.eval_shape(optimizer.init, param)
    step = lambda optimizer, g, s, p: optimizer.update(g, s, p)[::-1]
    lowered = jax.jit(step, donate_argnums=2).lower(optimizer, param, state, param)
    temporary = lowered.compile().memory_analysis().temp_size_in_bytes
    return temporary / param.size / param.dtype.itemsize


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    optimizers = {name: make(jr.key(0)) for name, make in OPTIMIZERS.items()}
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}")
    print(f"{'tensor':28s}" + "".join(f"{name:>14s}" for name in optimizers))
    for shape, dtype in TENSORS:
        row = [scratch(o, shape, dtype) for o in optimizers.values()]
        name = f"{dtype} {'x'.join(map(str, shape))}"
        print(f"{name:28s}" + "".join(f"{x:14.2f}" for x in row), flush=True)


if __name__ == "__main__":
    main()
