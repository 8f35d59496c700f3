"""The SAM family: Segment Anything (Kirillov et al. 2023) with its ViT-B, ViT-L and ViT-H encoders."""
