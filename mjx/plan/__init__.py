"""Programs for GPUs that are not here: compiled, measured and explained on any machine."""
