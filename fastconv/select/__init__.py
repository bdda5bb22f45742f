"""From a problem to the algorithm that runs it, and why that one."""
