"""Layers of SGNet. Each module is one idea of the paper, with its section or equation beside the line."""
