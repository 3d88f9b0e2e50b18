"""One run: its directory, stage records, context, policy server and endpoints."""
