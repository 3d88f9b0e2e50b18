"""Search over the states of a task: a tree of workspaces and histories, the rules that grow it, and the loop."""
