"""The worker process: threads, tasks from the broker, time and memory limits."""
