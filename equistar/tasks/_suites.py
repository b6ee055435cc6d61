"""Named groups of named tasks."""

from .._names import look_up
from ._offline import OFFLINE
from ._varied import VARIED


SUITES: dict[str, tuple[str, ...]] = {
    "smoke": ("digits_logistic", "wine_mlp", "quadratic"),
    "offline": tuple(OFFLINE),
    "varied": tuple(VARIED),
    "paper_in_distribution": ("fashion_mnist_mlp", "cifar10_convnet"),
    "paper_out_of_distribution": (
        "cifar10_mlp_layer_norm",
        "cifar10_mlp_batch_norm",
        "imagenet32_resnet",
        "cifar100_convnet",
        "svhn_convnet",
        "cifar10_vit",
        "mnist_autoencoder",
        "lm1b_lstm",
        "lm1b_gru",
        "lm1b_rnn",
        "lm1b_transformer",
        "lm1b_bytes_lstm",
        "fashion_mnist_mlp_wide",
        "fashion_mnist_mlp_tanh",
        "fashion_mnist_mlp_es",
        "fashion_mnist_mlp_es8",
    ),
}
"""Names of tasks, by the suite's name; each is one for [`equistar.tasks.named`][].

`smoke` runs in seconds. `offline` needs no download: real images, tables, a photograph and
text, and problems whose solutions are known. `star-best` is meta-trained on `varied` and on
`digits_mlp`; no task of `varied` is in `offline`. The STAR paper's tasks need data that
`equistar data prepare` prepares. The paper does not describe all of its tasks out of
distribution; we chose the others from the families that it names.
"""


HORIZONS: dict[str, tuple[int, ...]] = {
    "smoke": (1, 10, 100),
    "offline": (1, 10),
    "varied": (1, 10),
    "paper_in_distribution": (1, 10),
    "paper_out_of_distribution": (1,),
}
"""The horizons of `equistar evaluate` on each suite, as multiples of `--steps`.

A horizon that would take longer than the time budget is left out.
"""


def suite(name: str) -> tuple[str, ...]:
    """The names of a suite's tasks.

    **Arguments:**

    - `name`: a key of [`equistar.tasks.SUITES`][].

    **Returns:**

    Names for [`equistar.tasks.named`][].

    **Raises:**

    `ValueError` that lists the right names if there is no such suite.
    """
    return look_up(name, SUITES, "suite")
