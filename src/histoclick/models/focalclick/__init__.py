"""FocalClick (Chen et al. 2022): a coarse mask of the object, then a refined crop at the click."""
