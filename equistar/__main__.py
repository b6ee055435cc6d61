"""`python -m equistar`, the same as the command `equistar`."""

from ._cli import command


if __name__ == "__main__":
    command()
