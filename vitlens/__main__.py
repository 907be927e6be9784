"""`python -m vitlens` is the `vitlens` command."""

from vitlens.cli import main

if __name__ == "__main__":
    main()
