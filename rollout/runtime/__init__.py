"""The event loop, parent-death signal and timeline of a process that acts."""
