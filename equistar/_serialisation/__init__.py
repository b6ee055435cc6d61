"""Weights in files, and those that come with the library."""

from ._encoding import WeightsError as WeightsError
from ._pretrained import (
    load_pretrained as load_pretrained,
    PRETRAINED as PRETRAINED,
    pretrained_provenance as pretrained_provenance,
    weights_path as weights_path,
)
from ._weights_file import (
    load as load,
    load_finite as load_finite,
    load_header as load_header,
    save as save,
    versions as versions,
)
