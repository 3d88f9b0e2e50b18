"""Which script runs next, and with which resources."""
