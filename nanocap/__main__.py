"""`python -m nanocap`, for where the program `nanocap` is not on the path."""

from nanocap.cli import main

if __name__ == "__main__":
    main()
