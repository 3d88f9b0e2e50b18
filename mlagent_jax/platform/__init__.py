"""JAX settings for CPUs and TPUs."""
