"""This package is the worker process: its threads, the tasks from the broker, and limits of time and memory."""
