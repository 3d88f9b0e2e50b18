"""One run: its directory, tasks, environment, policy server and endpoints."""
