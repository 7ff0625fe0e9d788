"""Training, evaluation and figures of the demo; nothing here is imported at run time."""
