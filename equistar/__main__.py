"""`python -m equistar`, the same as the command `equistar`."""

from ._cli import main


if __name__ == "__main__":
    main()
