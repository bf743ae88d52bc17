"""A final network that leaves: plain PyTorch, and what other programs read."""
