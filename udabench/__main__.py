"""``python -m udabench``."""

from udabench.cli import main

main()
