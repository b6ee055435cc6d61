"""What an update is on a GPU or TPU that is not at hand: its kernels and their traffic.

    python benchmarks/ahead_of_time.py --device h200
    python benchmarks/ahead_of_time.py --device v5e --trees "8192x8192"

XLA compiles for a device that is only described, so that this runs on any machine with
the device's plugin: `libtpu` for a TPU, and for a GPU `jax-cuda12-plugin` and
`jax-cuda12-pjrt` of jax's version, `nvidia-cuda-nvcc-cu12` and `nvidia-cuda-runtime-cu12`.
Nothing is timed. Of the compiled update and apply, parameters and state donated, it
counts the kernels and the bytes that they read and write: an array once for each kernel
that touches it, wherever it lies. Where an update is bound by memory, and its kernels are
large enough, the ratio of the bytes is that of the times.
"""

import argparse
import math
import os
import re
import time


# Before jax is imported: there is no device for its plugins to find.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "TPU_SKIP_MDS_QUERY": "1",
}

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import optax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

import equistar as eqs


# What the compiler needs to know of an H200, from NVIDIA's data sheet and CUDA's
# programming guide for compute capability 9.0.
_H200 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  memory_bandwidth: 4800000000000 device_memory_size: 151397597184
  l2_cache_size: 52428800 shared_memory_per_core: 233472
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H200"
"""
DEVICES = {
    "h200": lambda: topologies.get_topology_desc(
        "h200", platform="cuda", topology="1x1x1", target_config=_H200
    ),
    "v5e": lambda: topologies.get_topology_desc("v5e:2x2", platform="tpu"),
}
_BLOCK = [(768,)] * 6 + [
    (768, 2304),
    (2304,),
    (768, 768),
    (768, 3072),
    (3072,),
    (3072, 768),
]
TREES = {
    "8192x8192": [(8192, 8192)],
    "transformer, 2 blocks of width 768": _BLOCK * 2,
}
OPTIMIZERS = {
    "optax.adam": lambda: eqs.OptaxOptimizer(optax.adam, learning_rate=1e-3),
    "STAR": lambda: eqs.STAR(key=jr.key(0)),
    "Blackbox": lambda: eqs.Blackbox(key=jr.key(0)),
    "AdaptiveSTAR": lambda: eqs.AdaptiveSTAR(key=jr.key(0)),
}
_WIDTHS = {"pred": 1, "s32": 4, "u32": 4, "f32": 4, "c64": 8}
# They hand arrays on, or begin what another ends.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
_FREE |= {"copy-done", "slice-done"}


def compiled(optimizer, shapes, device):
    """The update and apply of one optimizer, for `device`."""
    on_device = lambda x: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=SingleDeviceSharding(device)
    )
    params = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    learned, fixed = eqx.partition(optimizer, eqx.is_array)

    def step(carry, learned, grads):
        params, state = carry
        updates, state = eqx.combine(learned, fixed).update(grads, state, params)
        return optax.apply_updates(params, updates), state

    carry = params, jax.eval_shape(optimizer.init, params)
    arguments = jtu.tree_map(on_device, (carry, learned, params))
    return jax.jit(step, donate_argnums=0).lower(*arguments).compile()


def size(shapes):
    """The bytes of the arrays in a string such as `(f32[2,3]{1,0}, s32[])`."""
    arrays = re.findall(r"([a-z]+\d*)\[([\d,]*)\]", shapes)
    numbers = lambda sizes: math.prod(int(n) for n in sizes.split(",") if n)
    return sum(_WIDTHS.get(kind, 0) * numbers(sizes) for kind, sizes in arrays)


def traffic(program):
    """For each kernel of a compiled program, the bytes that it reads and writes."""
    entry = program[program.index("\nENTRY") :].splitlines()[1:]
    sizes, moved, tuples, same = {}, [], {}, {}
    for line in entry:
        pattern = r"\s*(?:ROOT )?%([\w.-]+) = (.*?) ([\w-]+)\((.*?)\)"
        if not (found := re.match(pattern, line)):
            continue
        name, shapes, kind, operands = found.groups()
        sizes[name] = size(shapes)
        # What is taken out of a tuple that was made of arrays is these arrays.
        inputs = [same.get(x, x) for x in re.findall(r"%([\w.-]+)", operands)]
        if kind == "tuple":
            tuples[name] = inputs
        if kind == "get-tuple-element" and inputs[0] in tuples:
            index = int(re.search(r"index=(\d+)", line).group(1))
            same[name] = tuples[inputs[0]][index]
        read = [sizes.get(x, 0) for x in set(inputs)]
        if kind.endswith("-start"):
            # Its result names source and destination.
            moved.append(2 * sum(read))
        elif kind not in _FREE and sizes[name]:
            moved.append(sizes[name] + sum(read))
    return moved


def described(name):
    """The device, as its plugin describes it."""
    try:
        return DEVICES[name]().devices[0]
    except (NotImplementedError, RuntimeError, ValueError) as e:
        raise SystemExit(
            f"There is no plugin for the {name} ({e}): install the packages that the first "
            "lines of this file name."
        ) from e


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=DEVICES, default="h200")
    parser.add_argument("--trees", nargs="+", choices=TREES, default=list(TREES))
    parser.add_argument(
        "--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS)
    )
    settings = parser.parse_args()
    device = described(settings.device)
    print(f"jax {jax.__version__}, compiled for {device.device_kind}, run nowhere")
    for tree in settings.trees:
        shapes = TREES[tree]
        count = sum(map(math.prod, shapes))
        print(f"\n{tree}: {len(shapes)} tensors, {count / 1e6:.1f} million parameters")
        for name in settings.optimizers:
            start = time.perf_counter()
            program = compiled(OPTIMIZERS[name](), shapes, device)
            moved = traffic(str(program.as_text()))
            scratch = program.memory_analysis().temp_size_in_bytes
            print(
                f"  {name:14s} {sum(moved) / count:6.1f} bytes a parameter  "
                f"{len(moved):4d} kernels, {len(moved) / len(shapes):5.1f} a tensor  "
                f"scratch {scratch / count:4.1f} bytes a parameter  "
                f"compile {time.perf_counter() - start:5.1f} s"
            )


if __name__ == "__main__":
    main()
