"""`equistar convert`."""

import math
import pathlib
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from .. import interop
from .._optimizers import AbstractLearnedOptimizer
from .._serialisation import load, save, weights_path
from ._output import CommandError, console


@dataclass
class Convert:
    """Turn a weights file of another library into one of ours, or the other way round.

    A .safetensors file holds a blackbox optimizer in the layout of PyTorch's MetaMLP, as
    published small_fc_lopt weights do; an .npz file is ours.
    """

    source: Annotated[pathlib.Path, tyro.conf.Positional]
    """The file to read, or the name of a pretrained optimizer."""
    target: Annotated[pathlib.Path, tyro.conf.Positional]
    """The file to write, of the other kind."""
    exp_mult: float | None = None
    """Of a .safetensors file, as the next four: the factor on its log-magnitudes. By
    default what the file says, or .001."""
    step_mult: float | None = None
    """The factor on its steps. By default what the file says, or .001."""
    momentum_decays: tuple[float, float, float] | None = None
    """Unconstrained offsets of its momenta's decays. By default as the file says, or 0."""
    rms_decays: tuple[float] | None = None
    """That of its second moment's."""
    adafactor_decays: tuple[float, float, float] | None = None
    """Those of its factored second moments'."""
    overwrite: bool = False
    """Replace the target if it is there."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        self._check()
        # A pretrained optimizer is named without the ending of its file.
        source = weights_path(self.source)
        kinds = source.suffix.lower(), self.target.suffix.lower()
        settings: dict[str, Any] = {
            "exp_mult": self.exp_mult,
            "step_mult": self.step_mult,
            "momentum_decays": self.momentum_decays,
            "rms_decays": self.rms_decays,
            "adafactor_decays": self.adafactor_decays,
        }
        match kinds:
            case ".safetensors", ".npz":
                self._from_safetensors(source, settings)
            case ".npz", ".safetensors":
                if any(value is not None for value in settings.values()):
                    raise CommandError(
                        "The multipliers and decays are of a .safetensors source."
                    )
                self._to_safetensors(source)
            case _:
                raise CommandError(
                    "One file must end in .safetensors and the other in .npz; got "
                    f"{self.source} and {self.target}."
                )
        console().print(f"Wrote {self.target}")
        return 0

    def _check(self) -> None:
        if self.target.exists() and not self.overwrite:
            raise CommandError(f"{self.target} is there already: pass --overwrite.")
        factors = {"--exp-mult": self.exp_mult, "--step-mult": self.step_mult}
        for flag, factor in factors.items():
            if factor is not None and not 0 <= factor < math.inf:
                raise CommandError(f"{flag} must be finite and at least 0; got {factor}.")

    def _from_safetensors(self, source: pathlib.Path, settings: dict[str, Any]) -> None:
        optimizer = interop.load_meta_mlp(source, **settings)
        save(self.target, optimizer, {"converted_from": self.source.name})
        console().print(
            "The layout holds no multipliers and no decays: where no option gives "
            "them and the file notes none, they are .001 and the initial ones."
        )

    def _to_safetensors(self, source: pathlib.Path) -> None:
        optimizer = load(source)
        if not isinstance(optimizer, AbstractLearnedOptimizer):
            raise CommandError(f"{self.source} holds no learned optimizer.")
        interop.save_meta_mlp(self.target, optimizer)
