"""The computer: processor, threads, BLAS, memory, files, forks."""
