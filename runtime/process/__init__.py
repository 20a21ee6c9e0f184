"""The process itself: start and stop, signals, owned background tasks, CPUs and the memory allocator."""
