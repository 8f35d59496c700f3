"""The built-in family: a MobileNetV2 trunk once per image, dense click prompts at every click."""
