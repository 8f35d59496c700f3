"""Training: what is clicked on, what is minimised, and the loop."""
