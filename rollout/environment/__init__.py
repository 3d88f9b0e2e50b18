"""The environment: what each action does to a workspace."""
