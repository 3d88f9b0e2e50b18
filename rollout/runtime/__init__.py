"""The event loop, the parent-death signal and the timeline of a process that runs rollouts."""
