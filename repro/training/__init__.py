"""SGD on a block of learning rates (Papyan 2020, Appendix D)."""
