"""The annotator's server: slides as tiles, clicks as masks, on one machine or for a team."""
