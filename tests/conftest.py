import jax
from jaxtyping import install_import_hook


jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Every shape and dtype annotation of the package is checked while the tests run.
install_import_hook("equistar", "beartype.beartype")
