"""``python -m histoclick``: for ``torchrun``, which starts modules."""

from histoclick.cli import main

main()
