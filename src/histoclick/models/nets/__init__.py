"""Networks that more than one family may use."""
