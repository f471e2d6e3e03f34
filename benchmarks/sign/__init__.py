"""A camera translator: signs are found, read, translated and redrawn in place, by a chain of models and operators."""
