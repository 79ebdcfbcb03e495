"""`python -m sipfw`."""

from sipfw.cli import main

main()
