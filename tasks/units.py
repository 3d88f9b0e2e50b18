"""Units of memory and disk."""

MIB = 2**20
