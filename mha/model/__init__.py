"""Models: multi-head attention, blocks and the encoder."""
