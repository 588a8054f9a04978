"""Jobs, interactive tasks, queues and workers: the core decides here which worker does which task."""
