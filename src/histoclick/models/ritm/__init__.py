"""RITM (Sofiiuk et al. 2022): one network sees image, clicks and previous mask, click by click."""
