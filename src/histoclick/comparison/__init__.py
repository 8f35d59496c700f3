"""Which decoder refines best: variants of one network, trained alike, compared click by click.

``python -m histoclick.comparison PLAN.toml --data ROOT --trunk FILE --out FOLDER``. The plan names
variants, seeds and patch sets (``plan``); every variant is trained with every seed on one pool of
crops and evaluated (``jobs``); what is done so far stands in a table (``table``).
"""
