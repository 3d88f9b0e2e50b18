"""Units of memory and disk."""

MIB = 2**20
GIB = 2**30
