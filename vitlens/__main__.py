"""`python -m vitlens` is the `vitlens` command."""

from vitlens.cli.app import main

if __name__ == "__main__":
    main()
