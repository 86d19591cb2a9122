"""`python -m tierkit`: the same as the command `tierkit`."""

from tierkit.cli import main

if __name__ == "__main__":
    main()
