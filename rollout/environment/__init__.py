"""The environment: apply an agent's actions to a workspace and write the feedback."""
