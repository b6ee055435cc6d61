"""What the command line prepares data sets with, and finds them by."""

from ._lm1b import (
    BYTES as BYTES,
    is_tokenised as is_tokenised,
    LM1B as LM1B,
    token_folder as token_folder,
    tokenise as tokenise,
)
from ._prepared import PREPARED as PREPARED
from ._tfds import data_folder as data_folder, prepared_folder as prepared_folder
