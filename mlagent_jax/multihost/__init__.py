"""Several processes: start, communication, preemption."""
