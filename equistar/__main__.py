"""`python -m equistar`, the same as the command `equistar`."""

from ._cli import main


main()
