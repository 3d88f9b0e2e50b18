"""The error of a setting that cannot be used; apart from the schema, which needs more than JAX."""


class ConfigError(ValueError):
    """A setting that cannot be used; the text says what it is, what was expected, and what to do."""
