"""The configuration of a run: schema, loading, checks."""
