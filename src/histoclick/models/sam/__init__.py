"""The SAM family: Segment Anything (Kirillov et al. 2023), encoders ViT-B, ViT-L and ViT-H."""
