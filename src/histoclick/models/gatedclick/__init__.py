"""One pass over the image, then clicks that change the mask where it is wrong and nowhere else."""
