"""SAM's successors as transformers runs them: SAM-HQ, SAM 2, SAM 3 and EdgeTAM."""
