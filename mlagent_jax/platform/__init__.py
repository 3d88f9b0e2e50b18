"""Settings of JAX for CPUs and TPUs."""
