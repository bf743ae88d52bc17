"""Sub-networks of a trained supernet: found within limits, taken out, kept."""
