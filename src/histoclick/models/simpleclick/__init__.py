"""SimpleClick (Liu et al. 2023): a plain vision transformer that sees clicks and previous mask."""
