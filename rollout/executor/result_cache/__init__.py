"""Results of deterministic scripts, kept and reused."""
