"""`python -m jsplat` is `jsplat`."""

from jsplat.cli import main

if __name__ == "__main__":
    main(prog_name="jsplat")
